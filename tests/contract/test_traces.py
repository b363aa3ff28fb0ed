"""What every method leaves as it was."""

from __future__ import annotations

import copy

import pytest
import torch

from lightning_prune.pipeline import prune
from tests.contract.cases import (
    CASES,
    Case,
    batches,
    even_model,
)
from tests.contract.marks import (
    calibrated,
    in_turn,
)
from tests.sweep.helpers import padded, split, traces


@pytest.mark.parametrize(
    ("case", "dtype"),
    list(in_turn(CASES, [torch.float32, torch.bfloat16, torch.float16], 2)),
    ids=str,
)
def test_types_devices_and_flags_are_kept(case: Case, dtype: torch.dtype) -> None:
    """Dtype, device, requires_grad, training mode, gradients, hooks."""
    model = even_model("llama", dtype=dtype).train()
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    before = traces(model)
    prune(model, case.make(), batches())
    assert traces(model) == before
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert parameter.device.type == "cpu"
        assert parameter.requires_grad == (flags[name] and parameter.numel() > 0)
        assert parameter.grad is None
        assert torch.isfinite(parameter).all()


@calibrated
def test_batches_are_left_as_they_were(case: Case) -> None:
    """The caller's tensors and dicts."""
    data = split(padded("left"), 2)
    before = copy.deepcopy(data)
    prune(even_model("llama"), case.make(), data)
    torch.testing.assert_close(data, before, rtol=0, atol=0)
