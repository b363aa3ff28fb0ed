"""The mean of every input feature."""

from __future__ import annotations

import torch

from lightning_prune.evidence import InputMean


def test_padding_does_not_count_and_batches_do_not_show() -> None:
    """Also where padding holds NaN."""
    generator = torch.Generator().manual_seed(0)
    input_BTI = torch.randn(4, 6, 3, generator=generator)
    keep_BT = torch.rand(4, 6, generator=generator) > 0.3
    expected_I = input_BTI[keep_BT].double().mean(0).float()
    input_BTI = input_BTI.masked_fill(~keep_BT[..., None], float("nan"))
    for size in (1, 4):
        one = InputMean().begin(3, torch.device("cpu"))
        for part_BTI, part_BT in zip(input_BTI.split(size), keep_BT.split(size), strict=True):
            one.update(part_BTI, part_BT)
        one.reduce()
        torch.testing.assert_close(one.result(), expected_I)
