"""`lightning-prune analyze scores PLAN_A [PLAN_B]`: how alike scores are, as a table and files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning_prune.analysis.scores import compare_scores
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.report.files import print_document, print_files
from lightning_prune.report.scores import scores_document, write_scores

__all__ = ["analyze"]


def analyze(what: Literal["scores"], plans: list[str], *, out: str | Path | None = None) -> None:
    """Analyse what runs leave behind.

    `scores` compares the scores of two plans, or those that the scores of one plan were put
    together from: Pearson, Spearman, cosine, what each would keep, distributions. Methods leave
    scores in their plan if made with keep_scores=True.

    Args:
        what: of the plans.
        plans: one or two folders of plans, or their plan.json.
        out: a folder for scores.json and scores.pdf.

    Raises:
        FileNotFoundError: there is no such plan.
        ValueError: a plan keeps no scores, or there are more than two.
    """
    if not 1 <= len(plans) <= 2:
        raise ValueError(f"one or two plans are compared, and {len(plans)} are given")
    folder = writable_folder(out)
    report = compare_scores(*plans)
    print_document(scores_document(report))
    if folder is not None:
        print_files(write_scores(report, folder))
