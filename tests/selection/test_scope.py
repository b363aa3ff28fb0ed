"""Within what scores are compared, and the reference codes' rule at the threshold."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune.selection import keep_globally, keep_in_scope, removed_count, scope_size

SHAPES = [(3, 5), (4, 128), (5, 129), (2, 300)]


def scores(rows: int, columns: int, levels: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * columns)
    if levels is None:
        return torch.rand(rows, columns, generator=generator)
    return torch.randint(levels, (rows, columns), generator=generator).float()


def lowest_go(score: torch.Tensor, sparsity: float, ties: str) -> torch.Tensor:
    """One scope by a loop: the count asked for, or all up to the score behind it."""
    flat = score.flatten().tolist()
    count = int(len(flat) * sparsity + 1e-9)
    order = sorted(range(len(flat)), key=lambda i: (flat[i], i))
    gone = set(order[:count])
    if ties == "reference":
        gone = {i for i, value in enumerate(flat) if value <= flat[order[count]]}
    return torch.tensor([i not in gone for i in range(len(flat))]).view(score.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("ties", ["exact", "reference"])
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.7])
def test_scopes_equal_a_loop(
    shape: tuple[int, int], levels: int | None, ties: Any, sparsity: float
) -> None:
    """Rows, the matrix, and every 128 columns, the last of which may be fewer."""
    score_OI = scores(*shape, levels)
    matrix_OI = lowest_go(score_OI, sparsity, ties)
    parts = [lowest_go(part, sparsity, ties) for part in score_OI.split(128, dim=1)]
    rows = [lowest_go(row, sparsity, "exact") for row in score_OI]
    assert torch.equal(keep_in_scope(score_OI, sparsity, "matrix", ties), matrix_OI)
    assert torch.equal(keep_in_scope(score_OI, sparsity, "columns", ties), torch.cat(parts, dim=1))
    assert torch.equal(keep_in_scope(score_OI, sparsity, "row", ties), torch.stack(rows))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("levels", [None, 3, 1])
@pytest.mark.parametrize("sparsity", [0.01, 0.25, 0.5, 0.7])
def test_balanced_counts_are_the_matrixes_and_rows_alike(
    shape: tuple[int, int], levels: int | None, sparsity: float
) -> None:
    """What no whole number a row makes up goes where the next weights are lowest."""
    score_OI = scores(*shape, levels)
    keep_OI = keep_in_scope(score_OI, sparsity, "balanced")
    removed = (~keep_OI).sum(dim=1)
    assert int(removed.sum()) == removed_count(score_OI.numel(), sparsity)
    each = int(removed.min())
    assert int(removed.max()) <= each + 1
    rows = [
        lowest_go(row, int(n) / len(row), "exact") for row, n in zip(score_OI, removed, strict=True)
    ]
    assert torch.equal(keep_OI, torch.stack(rows))
    following = score_OI.sort(dim=1).values[:, each]
    if (removed > each).any():
        assert following[removed > each].max() <= following[removed == each].min()


@pytest.mark.parametrize(
    ("scope", "size"), [("row", 300), ("balanced", 600), ("matrix", 600), ("columns", 256)], ids=str
)
def test_a_fraction_is_taken_of_so_many_weights(scope: Any, size: int) -> None:
    """Of a matrix of 2 x 300, at a time; a narrow one is taken whole."""
    assert scope_size((2, 300), scope) == size
    assert scope_size((2, 5), "columns") == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("levels", "shift"), [(None, 0.0), (3, 0.0), (None, -0.4)])
@pytest.mark.parametrize("ties", ["exact", "reference"])
@pytest.mark.parametrize("sparsity", [0.01, 0.5, 0.7])
def test_several_matrices_are_compared_as_one(
    levels: int | None, shift: float, ties: Any, sparsity: float, dtype: torch.dtype
) -> None:
    """By a loop over all their scores, negative ones too, one matrix behind the other."""
    several = {f"{shape}": scores(*shape, levels).to(dtype) + shift for shape in SHAPES}
    several |= {"turned": scores(8, 3, levels).to(dtype).mT}
    together = torch.cat([score_OI.flatten() for score_OI in several.values()])
    keep = keep_globally(several, sparsity, ties)
    assert {name: mask.shape for name, mask in keep.items()} == {
        name: score_OI.shape for name, score_OI in several.items()
    }
    found = torch.cat([mask.flatten() for mask in keep.values()])
    assert torch.equal(found, lowest_go(together, sparsity, ties))
