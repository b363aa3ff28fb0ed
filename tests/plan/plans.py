"""Plans to test with."""

from __future__ import annotations

import torch

from lightning_prune.plan import Plan

SHAPES = [(1, 1), (1, 7), (8, 1), (3, 5), (2, 8), (9, 31)]


def random_mask(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


def full_plan(seed: int = 0) -> Plan:
    """Masks of odd shapes, both kinds of units, all kinds of scores, provenance."""
    plan = Plan({"model": "müde", "arguments": {"sparsity": 0.5, "list": [1, None, True]}})
    for rows, columns in SHAPES:
        plan.set_mask(f"w.{rows}.{columns}", random_mask(rows, columns, seed=seed))
    plan.set_kept("neuron", 0, torch.tensor([0, 5, 21]), 22)
    plan.set_kept("neuron", 2, torch.arange(22), 22)
    plan.set_kept("group", 11, torch.tensor([3]), 4)
    plan.set_scores("weight", "w.3.5", torch.arange(15.0).view(3, 5))
    plan.set_scores("neuron", 0, torch.arange(22.0))
    plan.set_scores("group", 11, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    return plan


def unit_plan(kept: list[int], total: int, kind: str = "neuron", block: int = 0) -> Plan:
    plan = Plan()
    plan.set_kept(kind, block, torch.tensor(kept), total)
    return plan


def drop_plan(*blocks: int, of: int) -> Plan:
    plan = Plan()
    for index in range(of):
        plan.set_kept("block", index, torch.arange(int(index not in blocks)), 1)
    return plan
