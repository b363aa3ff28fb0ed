"""Wanda and magnitude on image classifiers, by slow loops after the reference's description.

s_j is the mean over tokens of x_j squared within a chunk of images, added up over chunks; the dense
model is run once, block by block; only Linears in blocks are pruned; compared are the weights of a
row, of the whole matrix ("layer"), or of some consecutive columns ("block").
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Magnitude, Wanda, prune
from lightning_prune.anatomy import Anatomy
from tests.image_models import image_batches, image_model

CHUNK, COLUMNS = 8, 10


def means(model: nn.Module) -> dict[str, torch.Tensor]:
    """s_j of each Linear's input, number by number."""
    found: dict[str, list[float]] = {}

    def hook(name: str) -> Any:
        def note(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2).double().tolist()
            sums = found.setdefault(name, [0.0] * len(rows[0]))
            for j in range(len(sums)):
                sums[j] += sum(row[j] ** 2 for row in rows) / len(rows)

        return note

    for block in Anatomy(model).blocks:
        for name, module in block.module.named_modules():
            if type(module) is nn.Linear:
                module.register_forward_pre_hook(hook(f"{block.name}.{name}"))
    with torch.no_grad():
        for batch in image_batches(size=CHUNK):
            model(pixel_values=batch["pixel_values"])
    return {name: torch.tensor(sums, dtype=torch.float64) for name, sums in found.items()}


def compared(matrix: Any, granularity: str) -> list[list[Any]]:
    """What of a matrix is compared with each other."""
    rows = torch.as_tensor(matrix).tolist()
    if granularity == "row":
        return rows
    width = COLUMNS if granularity == "block" else len(rows[0])
    starts = range(0, len(rows[0]), width)
    return [[value for row in rows for value in row[start : start + width]] for start in starts]


@pytest.mark.parametrize("family", ["vit", "convnext"])
@pytest.mark.parametrize("granularity", ["row", "layer", "block"])
@pytest.mark.parametrize("metric", ["wanda", "magnitude"])
def test_scores_and_masks_are_the_references(
    family: str, granularity: str, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-6 in scores, once the constant factor of tokens is taken out; exact counts."""
    monkeypatch.setattr("lightning_prune.selection.scope.COLUMNS", COLUMNS)
    scope: Any = {"row": "row", "layer": "matrix", "block": "columns"}[granularity]
    made: dict[str, Any] = {"sparsity": 0.5, "scope": scope, "keep_scores": True}
    method = Wanda(propagate="none", **made) if metric == "wanda" else Magnitude(**made)
    model, dense = image_model(family), image_model(family)
    plan, mean = prune(model, method, image_batches(size=CHUNK)), means(image_model(family))
    assert len(plan.mask_names) == len(mean)
    for name, mean_I in mean.items():
        weight_OI = dense.get_submodule(name).weight.detach().double()
        expected = [
            [
                abs(w) * (math.sqrt(s) if metric == "wanda" else 1.0)
                for w, s in zip(row, mean_I.tolist(), strict=True)
            ]
            for row in weight_OI.tolist()
        ]
        expected_OI = torch.tensor(expected, dtype=torch.float64)
        score_OI = plan.scores("weight", f"{name}.weight").double()
        score_OI *= expected_OI.norm() / score_OI.norm()
        torch.testing.assert_close(score_OI, expected_OI, rtol=1e-6, atol=1e-6)
        keep_OI = plan.mask(f"{name}.weight")
        values_of, stays_of = compared(expected_OI, granularity), compared(keep_OI, granularity)
        for values, stays in zip(values_of, stays_of, strict=True):
            gone = len(values) - sum(stays)
            assert gone == int(len(values) * 0.5)
            highest_gone = max(v for v, s in zip(values, stays, strict=True) if not s)
            lowest_kept = min(v for v, s in zip(values, stays, strict=True) if s)
            assert highest_gone <= lowest_kept * (1 + 1e-6)
