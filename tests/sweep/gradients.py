"""Gradients of a calibration set, swept and by plain autograd."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Gradients, Objective, TaskLoss
from lightning_prune.sweep.backward import gradient_sweep
from tests.sweep.helpers import states_of, tokens_of

Batch = dict[str, torch.Tensor]


def autograd(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss over all tokens that are predicted, by plain autograd."""
    model = copy.deepcopy(model).requires_grad_()
    labels_BT = batch.get("labels", batch["input_ids"])
    kept_BT = tokens_of(batch)
    kept_BT[:, 1:] &= kept_BT[:, :-1].clone()
    labels_BT = labels_BT.masked_fill(~kept_BT, -100)
    inputs = {name: batch[name] for name in batch if name != "labels"}
    logits_BTV = model(**inputs, use_cache=False).logits
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten()).backward()
    return site_gradients(model)


def site_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        site.weight_name: site.module.weight.grad
        for block in Anatomy(model).blocks
        for site in block.sites
    }


def swept(
    model: nn.Module,
    batches: list[Batch],
    squares: bool = False,
    offload: bool = False,
    whole: bool | None = None,
    objective: Objective | None = None,
    head: bool = False,
) -> dict[str, Gradients]:
    states = states_of(model, batches, offload)
    found: dict[str, Gradients] = {}
    wanted = Gradients(objective=objective or TaskLoss(), squares=squares)
    blocks = states.anatomy.blocks + ([states.anatomy.head] if head else [])
    for _, evidence in gradient_sweep(states, wanted, blocks, whole=whole):
        found |= evidence
    return found


def assert_gradients_equal(found: dict[str, Gradients], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, one in found.items():
        product_OI = one.weight_OI.double() * expected[name].double()
        torch.testing.assert_close(
            one.first_OI.double(), product_OI, rtol=1e-3, atol=1e-5 * float(product_OI.abs().max())
        )


either_way = pytest.mark.parametrize("whole", [True, False], ids=["whole", "by block"])
