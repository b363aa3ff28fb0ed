"""How well a scorer agrees with labels that others gave the same texts.

Axes: N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_precision,
    binary_recall,
)

from lightning_prune.evaluation.scorers.base import Scorer

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """How well scores agree with labels; a text has it by its label where that reaches the cut."""

    texts: int
    labelled: int
    """Texts that have it by their label."""
    flagged: int
    """Texts that have it by their score."""
    auc: float
    """The share of pairs, of a text that has it and one that has not, in the right order."""
    spearman: float | None
    """Rank correlation of scores and labels; None: all scores are the same."""
    precision: float | None
    """Of those that are flagged, how many have it; None: none is flagged."""
    recall: float
    """Of those that have it, how many are flagged."""
    cut: float
    threshold: float


def agreement(
    scorer: Scorer, texts: Sequence[str], labels: Sequence[float], cut: float = 0.5
) -> Agreement:
    """Score texts that have labels, and compare.

    Args:
        scorer: what is judged, at its own threshold.
        texts: of any kind.
        labels: a number each, higher for more of what the scorer looks for.
        cut: the label from which on a text has it.

    Raises:
        ValueError: there are not as many labels as texts, or one is not a number, or all or none
            reach the cut; before the first text is scored.
    """
    label_N = torch.as_tensor(labels, dtype=torch.float64)
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts have {len(labels)} labels; give each text one")
    if not bool(torch.isfinite(label_N).all()):
        raise ValueError("a label is infinite or no number; leave its text out")
    has_N = label_N >= cut
    labelled = int(has_N.sum())
    if labelled in (0, len(texts)):
        low, high = (float(label_N.min()), float(label_N.max())) if len(texts) else (0.0, 0.0)
        raise ValueError(
            f"{labelled} of {len(texts)} labels reach cut={cut}; they lie between {low:.3g} and "
            f"{high:.3g}. Choose a cut that some reach and others do not."
        )
    score_N = torch.tensor(scorer.score(texts), dtype=torch.float64)
    flagged_N = score_N >= scorer.threshold
    flagged, constant = int(flagged_N.sum()), bool((score_N == score_N[0]).all())
    return Agreement(
        texts=len(texts),
        labelled=labelled,
        flagged=flagged,
        auc=float(binary_auroc(score_N, has_N.int())),
        spearman=None if constant else float(spearman_corrcoef(score_N, label_N)),
        precision=float(binary_precision(flagged_N.int(), has_N.int())) if flagged else None,
        recall=float(binary_recall(flagged_N.int(), has_N.int())),
        cut=cut,
        threshold=scorer.threshold,
    )
