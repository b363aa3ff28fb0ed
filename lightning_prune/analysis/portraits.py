"""What pictures of masks are drawn from: shares of zeros, densities, curves and intersections.

Axes: O output features, I input features, N numbers of one matrix, Q places of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_prune.analysis.density import density
from lightning_prune.analysis.keys import place_of
from lightning_prune.analysis.masks import Masks, shared_names

__all__ = ["Curve", "MatrixPortrait", "Portrait", "intersections", "portrait"]

PLACES = np.linspace(0, 1, 201)
BINS = 60
MOST_MASKS = 6


@dataclass(frozen=True)
class Curve:
    """How much of all scores the highest hold together.

    Attributes:
        held_Q: the share of the sum that the highest hold, at each of 201 shares of their number.
        kept: the share of the weights that stay.
        held_by_kept: the share of the sum that these hold.
    """

    held_Q: np.ndarray
    kept: float
    held_by_kept: float


@dataclass(frozen=True)
class MatrixPortrait:
    """One matrix, to be drawn.

    Attributes:
        shape: (O, I).
        density_YX: the fraction of weights that stay in each cell of a picture.
        zeros_O, zeros_I: fraction of zeros in each row and column.
        curve: of its scores, or of the magnitudes of its weights; None: neither is known.
        scores: what the curve is of.
        weights: counts and edges of its weights that are not zero; None: unknown.
        strange: how many of its weights, or scores, are infinite or not a number; curve and weights
            are of the others.
    """

    shape: tuple[int, int]
    density_YX: np.ndarray
    zeros_O: np.ndarray
    zeros_I: np.ndarray
    curve: Curve | None
    scores: str
    weights: tuple[np.ndarray, np.ndarray] | None
    strange: int = 0


@dataclass(frozen=True)
class Portrait:
    """One mask, to be drawn.

    Attributes:
        zeros: fraction of zeros by block and projection, of all matrices.
        matrices: those that are drawn one by one, by name.
    """

    zeros: Mapping[tuple[int, str], float]
    matrices: Mapping[str, MatrixPortrait]

    def to_dict(self) -> dict[str, Any]:
        """What is drawn, as JSON can say it, without the pictures of single weights."""
        return {
            "zeros": [
                {"block": b, "projection": p, "share": s} for (b, p), s in self.zeros.items()
            ],
            "matrices": {
                name: {
                    "shape": m.shape,
                    "rows": _quantiles(m.zeros_O),
                    "columns": _quantiles(m.zeros_I),
                    "scores": m.scores,
                    "not_finite": m.strange,
                    "held_by_kept": None if m.curve is None else m.curve.held_by_kept,
                }
                for name, m in self.matrices.items()
            },
        }


def portrait(masks: Masks, include: Sequence[str]) -> Portrait:
    """Read what pictures of a mask need; one matrix is in memory at a time.

    Args:
        masks: of a checkpoint or a plan.
        include: patterns of names of the matrices that are drawn one by one.

    Raises:
        ValueError: a pattern matches none.
    """
    drawn = shared_names([masks], include)
    zeros: dict[tuple[int, str], float] = {}
    matrices = {}
    for name in masks.shapes:
        place = place_of(name)
        assert place is not None
        if name in drawn:
            keep_OI = masks.mask(name)
            zeros[place] = float(1 - keep_OI.mean())
            matrices[name] = _matrix(masks, name, keep_OI)
        else:
            kept = sum(int(np.count_nonzero(keep_OI)) for _, keep_OI in masks.rows(name))
            zeros[place] = 1 - kept / np.prod(masks.shapes[name])
    return Portrait(zeros, matrices)


def intersections(sources: Mapping[str, Masks]) -> dict[tuple[str, ...], int]:
    """How many weights stay in just these masks, by their names, most first; () in none.

    Raises:
        ValueError: there are fewer than two masks, or more than six; or they do not fit together.
    """
    if not 2 <= len(sources) <= MOST_MASKS:
        raise ValueError(
            f"intersections are of 2 to {MOST_MASKS} masks, and {len(sources)} are given"
        )
    names = list(sources)
    counts = np.zeros(1 << len(names), dtype=np.int64)
    for name in shared_names(list(sources.values())):
        for rows in zip(*(source.rows(name) for source in sources.values()), strict=True):
            code_OI = np.zeros(rows[0][1].shape, dtype=np.uint8)
            for bit, (_, keep_OI) in enumerate(rows):
                code_OI |= keep_OI.view(np.uint8) << np.uint8(bit)
            counts += np.bincount(code_OI.ravel(), minlength=len(counts))
    order = sorted(range(len(counts)), key=lambda code: (-counts[code], code))
    return {
        tuple(n for bit, n in enumerate(names) if code >> bit & 1): int(counts[code])
        for code in order
    }


def _matrix(masks: Masks, name: str, keep_OI: np.ndarray) -> MatrixPortrait:
    values_OI = np.concatenate([v for v, _ in masks.rows(name)]) if masks.has_values else None
    scored = masks.scores(name)
    score_OI = scored[1] if scored is not None else values_OI
    known = [np.isfinite(one) for one in (score_OI, values_OI) if one is not None]
    finite_OI = np.logical_and.reduce(known) if known else np.ones_like(keep_OI)
    curve = None
    if score_OI is not None and finite_OI.any():
        curve = _curve(np.abs(score_OI[finite_OI]), keep_OI[finite_OI])
    return MatrixPortrait(
        masks.shapes[name],
        density(keep_OI),
        1 - keep_OI.mean(axis=1),
        1 - keep_OI.mean(axis=0),
        curve,
        "magnitudes of weights" if scored is None else f"scores of {scored[0]}",
        None if values_OI is None else np.histogram(values_OI[finite_OI & (values_OI != 0)], BINS),
        int(np.count_nonzero(~finite_OI)),
    )


def _curve(score_N: np.ndarray, keep_N: np.ndarray) -> Curve:
    """The share of the sum that the highest hold, and what is held by those that stay."""
    total = float(score_N.sum(dtype=np.float64)) or 1.0
    held_N = np.concatenate([[0.0], np.sort(score_N)[::-1].cumsum(dtype=np.float64) / total])
    held_Q = held_N[np.round(PLACES * len(score_N)).astype(int)]
    return Curve(held_Q, float(keep_N.mean()), float(score_N[keep_N].sum(dtype=np.float64)) / total)


def _quantiles(shares: np.ndarray) -> dict[str, float]:
    return {str(q): float(np.quantile(shares, q)) for q in (0.0, 0.05, 0.5, 0.95, 1.0)}
