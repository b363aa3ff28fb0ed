"""Whether the zeros of a mask lie together: what a kernel that skips blocks of zeros could save.

A mask has blocks of zeros by chance alone, and more of them where some rows or columns are emptier
than others. So every share is compared with that of masks that were shuffled: "rows" keeps how many
weights stay in each row, "rows and columns" also how many stay in each column. What a mask has
above the second is structure; what the second has above the first is due to empty columns.

Axes: O output features, I input features, P pairs of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["SHAPES", "Coherence", "coherence", "shuffled", "zero_blocks"]

SHAPES = ((1, 8), (8, 1), (4, 4), (16, 16), (32, 32))
"""Rows and columns of the blocks that are looked for. (1, 8) is the "block coherence" of
https://github.com/dat-adi/sparsity_characterization, which calls more than 0.3 of it structure."""
ROUNDS = 30
"""Trades between every two rows; the blocks of a mask change no more after about ten."""


@dataclass(frozen=True)
class Coherence:
    """Blocks of one shape in a mask.

    Attributes:
        shape: rows and columns.
        share: fraction of the blocks that are all zero: of the multiplications that a kernel which
            skips them saves.
        ordered: the same with rows and columns in another order; None: there is none.
        rows: shares of masks that were shuffled within rows, one for each seed.
        both: of masks that keep the counts of rows and of columns.
    """

    shape: tuple[int, int]
    share: float
    ordered: float | None
    rows: Sequence[float]
    both: Sequence[float]


def coherence(
    keep_OI: np.ndarray,
    seeds: Sequence[int],
    ordered_OI: np.ndarray | None = None,
    shapes: Sequence[tuple[int, int]] = SHAPES,
) -> list[Coherence]:
    """The blocks of zeros of a mask, of the same mask in another order, and of shuffled ones."""
    rows = [shuffled(keep_OI, seed) for seed in seeds]
    both = [shuffled(keep_OI, seed, keep_columns=True) for seed in seeds]
    return [
        Coherence(
            shape,
            zero_blocks(keep_OI, shape),
            None if ordered_OI is None else zero_blocks(ordered_OI, shape),
            [zero_blocks(mask, shape) for mask in rows],
            [zero_blocks(mask, shape) for mask in both],
        )
        for shape in shapes
        if all(size <= side for size, side in zip(shape, keep_OI.shape, strict=True))
    ]


def zero_blocks(keep_OI: np.ndarray, shape: tuple[int, int]) -> float:
    """Fraction of the blocks that are all zero; rows and columns that fill none are left out."""
    rows, columns = (side // size for side, size in zip(keep_OI.shape, shape, strict=True))
    whole_OI = keep_OI[: rows * shape[0], : columns * shape[1]]
    blocks = whole_OI.reshape(rows, shape[0], columns, shape[1])
    return float(1 - blocks.any(axis=(1, 3)).mean()) if rows and columns else 0.0


def shuffled(keep_OI: np.ndarray, seed: int, *, keep_columns: bool = False) -> np.ndarray:
    """A mask of which each row keeps its count, and on request each column, too.

    With columns by trades, as in Strona et al., "A fast and unbiased procedure to randomize
    ecological binary matrices" (2014): two rows share out anew, at random, what only one of them
    has. All rows trade at the same time, with partners drawn anew in each round.
    """
    random = np.random.default_rng(seed)
    if not keep_columns:
        return random.permuted(keep_OI, axis=1)
    mask_OI = keep_OI.copy()
    for _ in range(ROUNDS):
        order_O = random.permutation(len(mask_OI))
        half = len(order_O) // 2
        first_P, second_P = order_O[:half], order_O[half : 2 * half]
        one_PI, other_PI = mask_OI[first_P], mask_OI[second_P]
        differs_PI = one_PI != other_PI
        draw_PI = np.where(differs_PI, random.random(differs_PI.shape, np.float32), 2.0)
        rank_PI = draw_PI.argsort(axis=1).argsort(axis=1)
        count_P1 = (one_PI & differs_PI).sum(axis=1, keepdims=True)
        mask_OI[first_P] = np.where(differs_PI, rank_PI < count_P1, one_PI)
        mask_OI[second_P] = np.where(differs_PI, rank_PI >= count_P1, other_PI)
    return mask_OI
