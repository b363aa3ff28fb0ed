"""Blocks of zeros: counted right, and compared with masks that keep their counts."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_prune.analysis.coherence import coherence, shuffled, zero_blocks


def random_mask(
    seed: int = 0, density: float = 0.4, shape: tuple[int, int] = (24, 40)
) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (3, 5), (24, 40), (25, 1)])
def test_blocks_are_those_of_a_slow_loop(shape: tuple[int, int]) -> None:
    """What fills no block is left out."""
    keep_OI = random_mask(density=0.1)
    blocks = [
        not keep_OI[o : o + shape[0], i : i + shape[1]].any()
        for o in range(0, 24 - shape[0] + 1, shape[0])
        for i in range(0, 40 - shape[1] + 1, shape[1])
    ]
    expected = sum(blocks) / len(blocks) if blocks else 0.0
    assert zero_blocks(keep_OI, shape) == pytest.approx(expected)


def test_shuffled_masks_keep_their_counts() -> None:
    """Of rows; on request of columns, too. They are others for other seeds."""
    keep_OI = random_mask() & (np.arange(40) % 3 > 0)
    for columns in (False, True):
        other_OI = shuffled(keep_OI, 1, keep_columns=columns)
        np.testing.assert_array_equal(other_OI.sum(axis=1), keep_OI.sum(axis=1))
        assert (other_OI.sum(axis=0) == keep_OI.sum(axis=0)).all() == columns
        assert (other_OI != keep_OI).mean() > 0.1
        assert (other_OI != shuffled(keep_OI, 2, keep_columns=columns)).any()
        np.testing.assert_array_equal(other_OI, shuffled(keep_OI, 1, keep_columns=columns))


def test_trades_reach_every_mask_alike() -> None:
    """Of a 3 x 3 mask with one in each row and column there are six: each comes as often."""
    counts: dict[bytes, int] = {}
    for seed in range(600):
        key = shuffled(np.eye(3, dtype=bool), seed, keep_columns=True).tobytes()
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert all(60 < count < 140 for count in counts.values()), counts


def test_only_structure_is_above_chance() -> None:
    """Empty columns are above masks shuffled in rows; planted blocks are above both."""
    columns = random_mask(1, 0.8, (32, 64)) & (np.arange(64) % 16 < 8)
    planted = np.kron(random_mask(3, 0.5, (4, 8)), np.ones((8, 8), dtype=bool))
    blocks = random_mask(2, 0.8, (32, 64)) & planted
    for keep_OI, above_both in ((columns, False), (blocks, True)):
        (found,) = coherence(keep_OI, [0, 1, 2], shapes=[(1, 8)])
        assert found.share > 2 * max(found.rows)
        assert (found.share > 1.3 * max(found.both)) == above_both
