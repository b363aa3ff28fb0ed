"""`lightning-prune analyze scores A [B]`: how alike scores are, as tables and files."""

from __future__ import annotations

from pathlib import Path

from lightning_prune.analysis.scores import compare_scores
from lightning_prune.commands.arguments import Kept, writable_folder
from lightning_prune.report.files import print_document, print_files
from lightning_prune.report.kept.studies import score_similarities_run
from lightning_prune.report.scores import scores_document, write_scores

__all__ = ["scores"]


def scores(paths: list[str], kept: Kept, *, out: str | Path | None = None) -> None:
    """Compare scores of two plans, or the components of one plan's.

    Pearson, Spearman, cosine, what each would keep, distributions. Methods leave scores in their
    plan if made with keep_scores=True.

    Args:
        paths: one or two folders of plans, or their plan.json.
        kept: where the result is added.
        out: a folder for scores.json and scores.pdf.

    Raises:
        FileNotFoundError: there is no such plan.
        ValueError: a plan keeps no scores, there are more than two, or they are not of the same
            parts.
    """
    if len(paths) > 2:
        raise ValueError(f"one or two plans are compared, and {len(paths)} are given")
    folder = writable_folder(out)
    report = compare_scores(*paths)
    print_document(scores_document(report))
    if folder is not None:
        print_files(write_scores(report, folder))
    kept.add(score_similarities_run, report)
