"""Distributions of a budget among blocks: how they are tried, changed and judged."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from lightning_prune.allocation import PerBlock
from lightning_prune.anatomy import Block
from lightning_prune.methods.units import UnitPruning
from lightning_prune.plan import Plan
from lightning_prune.studies.bench import Batches

__all__ = ["HIGHEST", "held_out_of", "moved", "removed_share", "with_shares"]

PASSAGE = 16
"""Windows that share so many tokens in a row are taken from the same place."""
HIGHEST = 0.95
"""Of a block, at most so much is removed."""


def with_shares(method: UnitPruning, fractions: Sequence[float]) -> UnitPruning:
    """The same method, which removes these fractions of its blocks."""
    return replace(method, allocation=PerBlock(fractions=list(fractions)))


def moved(
    fractions: Sequence[float], sizes: Sequence[int], most: float, rng: random.Random
) -> list[float]:
    """Budget moved from one block to another, at random.

    Args:
        fractions: what is removed of each block.
        sizes: parameters of each block.
        most: how much is moved at most, as a fraction of the smaller of the two blocks.
        rng: decides which blocks, and how much.
    """
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


def removed_share(plan: Plan, method: UnitPruning, block: Block) -> float:
    """The fraction of a block's units, by parameters, that a plan removes."""
    removed = sum(
        plan.blocks(kind)[block.index].removed * block.unit_size(kind)
        for kind in method.kinds_of(block)
    )
    return removed / method.size(block)


def held_out_of(
    training: Iterable[dict[str, torch.Tensor]], seen: Batches, count: int, length: int
) -> Batches:
    """Training windows that share no passage with those that are seen.

    Args:
        training: training batches.
        seen: batches whose text must not come again.
        count: how many windows to take.
        length: tokens in a window.

    Raises:
        ValueError: there are not so many.
    """
    length = min(PASSAGE, length)
    taken = {
        passage
        for batch in seen
        for window in batch["input_ids"].tolist()
        for passage in _passages(window, length)
    }
    held_out: Batches = []
    for batch in training:
        for i, window in enumerate(batch["input_ids"].tolist()):
            if taken.isdisjoint(_passages(window, length)):
                held_out.append({name: tensor[i : i + 1] for name, tensor in batch.items()})
            if len(held_out) == count:
                return held_out
    raise ValueError(
        f"the training text has {len(held_out)} windows that share nothing with the calibration "
        f"and validation windows, and held_out={count} are asked for. Give more text, or lower "
        "held_out or nsamples."
    )


def _passages(window: Sequence[int], length: int) -> set[int]:
    return {hash(tuple(window[i : i + length])) for i in range(len(window) - length + 1)}
