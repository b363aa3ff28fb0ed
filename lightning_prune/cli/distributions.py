"""Distributions of a budget among blocks: how they are tried, changed and judged."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from lightning_prune.allocation import PerBlock
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.plan import Plan

__all__ = ["HIGHEST", "gone", "held_out_of", "moved", "scored"]

Batches = list[dict[str, torch.Tensor]]

PASSAGE = 16
"""Windows that share so many tokens in a row are taken from the same place."""
HIGHEST = 0.95
"""Of a block, at most so much is removed."""


def scored(
    method: UnitPruning, known: Mapping[int, Mapping[str, torch.Tensor]], fractions: list[float]
) -> UnitPruning:
    """The same method with other shares, and with scores that are known already."""
    cls, one = type(method), copy.copy(method)
    more = {"evidence": None, "score": lambda self, block, evidence: dict(known[block.index])}
    # A name of its own: the parser finds classes by theirs.
    one.__class__ = type(f"Scored{cls.__name__}", (cls,), more)
    one.allocation = PerBlock(fractions)
    return one


def moved(
    fractions: Sequence[float], sizes: Sequence[int], most: float, rng: random.Random
) -> list[float]:
    """Budget moved from one block to another, at random."""
    down, up = rng.sample(range(len(sizes)), 2)
    shares = list(fractions)
    parameters = min(
        most * rng.random() * min(sizes[up], sizes[down]),
        shares[down] * sizes[down],
        max(HIGHEST - shares[up], 0.0) * sizes[up],
    )
    shares[down] = max(0.0, round(shares[down] - parameters / sizes[down], 6))
    shares[up] = round(shares[up] + parameters / sizes[up], 6)
    return shares


def gone(plan: Plan, method: UnitPruning, block: Any) -> float:
    """The fraction of a block's units, by parameters, that a plan removes."""
    removed = sum(
        plan.blocks(kind)[block.index].removed * block.unit_size(kind)
        for kind in method.kinds_of(block)
    )
    return removed / method.size(block)


def held_out_of(
    training: Iterable[dict[str, torch.Tensor]], seen: Batches, count: int, length: int
) -> Batches:
    """Training windows that share no passage with those that are seen."""
    length = min(PASSAGE, length)
    taken = {
        passage
        for batch in seen
        for window in batch["input_ids"].tolist()
        for passage in _passages(window, length)
    }
    found: Batches = []
    for batch in training:
        for i, window in enumerate(batch["input_ids"].tolist()):
            if taken.isdisjoint(_passages(window, length)):
                found.append({name: tensor[i : i + 1] for name, tensor in batch.items()})
            if len(found) == count:
                return found
    raise ValueError(
        f"the training text has {len(found)} windows that share nothing with the calibration and "
        f"validation windows, and held_out={count} are asked for. Give more text, or lower "
        "held_out or nsamples."
    )


def _passages(window: Sequence[int], length: int) -> set[int]:
    return {hash(tuple(window[i : i + length])) for i in range(len(window) - length + 1)}
