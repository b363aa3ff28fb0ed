"""Rows that are solved in chunks."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.repair import rows
from lightning_prune.repair.support import solve_on_support


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("total", [5, 1024, 3000, 4096])
def test_processes_take_whole_chunks(total: int, count: int) -> None:
    """Every row once, in order, and no process more than one chunk above another."""
    shares = [rows.rows_of(total, part, count) for part in range(count)]
    assert [i for share in shares for i in range(total)[share]] == list(range(total))
    assert all(share.start % rows.ROWS == 0 or share.start == total for share in shares)
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= rows.ROWS


@pytest.mark.parametrize("count", [2, 3])
def test_a_share_of_the_rows_gives_what_all_give(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: products, solutions, and least squares on a support."""
    monkeypatch.setattr(rows, "ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    right_OI, start_OI = torch.randn(2, 40, 24, generator=generator)
    root_II = torch.randn(24, 24, generator=generator) / 5
    gram_II = root_II @ root_II.mT
    gram_II.diagonal().fill_(1).add_(1)
    keep_OI = start_OI > 0
    lower_II = torch.linalg.cholesky(gram_II)
    whole = (
        rows.product(right_OI, gram_II),
        rows.solved(right_OI, lower_II),
        solve_on_support(gram_II, right_OI, keep_OI, start_OI),
    )
    torch.testing.assert_close(whole[0], right_OI @ gram_II)
    torch.testing.assert_close(whole[1] @ gram_II, right_OI)
    for part in range(count):
        own = rows.rows_of(40, part, count)
        of_part = (
            rows.product(right_OI[own], gram_II),
            rows.solved(right_OI[own], lower_II),
            solve_on_support(gram_II, right_OI[own], keep_OI[own], start_OI[own]),
        )
        for expected, found in zip(whole, of_part, strict=True):
            assert torch.equal(expected[own], found)
