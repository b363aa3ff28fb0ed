"""What is expected of pruned image classifiers."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.anatomy import Anatomy, Site
from lightning_prune.plan import Plan
from lightning_prune.selection import removed_count
from tests.contract.vit import IMAGES


def sites(model: nn.Module) -> list[Site]:
    return [site for block in Anatomy(model).blocks for site in block.sites]


def lowest_go(score: torch.Tensor, sparsity: float) -> torch.Tensor:
    """A mask by a sorted list; of equal ones the first go."""
    flat = score.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: (flat[i], i))
    gone = set(order[: removed_count(len(flat), sparsity)])
    return torch.tensor([i not in gone for i in range(len(flat))]).view(score.shape)


def assert_masked(model: nn.Module, plan: Plan, dense: nn.Module) -> None:
    """Zero just where the plan says; elsewhere as it was, unless the method corrected it."""
    weights, before = dict(model.named_parameters()), dict(dense.named_parameters())
    for name, weight in weights.items():
        if name not in plan.mask_names:
            assert torch.equal(weight, before[name]), name
        elif name in plan.corrected:
            assert torch.equal(weight != 0, plan.mask(name)), name
        else:
            assert torch.equal(weight, before[name] * plan.mask(name)), name


def loss_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Of the mean cross entropy over all images, by plain autograd."""
    model = copy.deepcopy(model).requires_grad_()
    F.cross_entropy(model(pixel_values=IMAGES["pixel_values"]).logits, IMAGES["labels"]).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
