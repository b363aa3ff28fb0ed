"""`lightning-prune score --scorer … --labelled FILE`: how well a scorer agrees with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_prune.commands.arguments import Kept, writable_folder
from lightning_prune.commands.quiet import quiet_loading
from lightning_prune.data.records import Labelled
from lightning_prune.evaluation.agreement import agreement
from lightning_prune.evaluation.scorers.base import Scorer
from lightning_prune.report.agreement import agreement_document
from lightning_prune.report.files import show
from lightning_prune.report.kept.runs import agreement_run

__all__ = ["score"]


@quiet_loading()
def score(
    kept: Kept,
    *,
    scorer: Scorer,
    labelled: str,
    text: Sequence[str],
    score: str,
    cut: float = 0.5,
    out: str | Path | None = None,
) -> None:
    """Judge a scorer by texts that have labels, before its rates are believed.

    AUC, Spearman, and precision and recall at the scorer's threshold. Records whose label is null
    are left out. No text is printed or written.

    Args:
        kept: where the result is added.
        scorer: WordList, Pattern, Profanity, TextClassifier, Detoxify, or a class of your own.
        labelled: a file of rows (.jsonl, .jsonl.gz, .json, .parquet).
        text: the field that holds the text, a dot between names; several are joined as they are.
        score: the field that holds the label, a number.
        cut: the label from which on a text has what the scorer looks for.
        out: a folder for score.json and score.md.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be used, or all labels or none reach the cut.
    """
    read = Labelled(source=labelled, text=list(text), score=score, cut=cut)
    texts, labels, left_out = read.read()
    folder = writable_folder(out)
    found = agreement(scorer, texts, labels, cut)
    settings = {
        "labelled": labelled,
        "text": list(text),
        "score": score,
        "without_score": left_out,
    }
    show(agreement_document(found, scorer.describe(), settings), folder)
    kept.add(agreement_run, found, scorer.describe(), settings)
