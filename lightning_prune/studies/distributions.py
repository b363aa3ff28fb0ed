"""Distributions of a budget among blocks: how they are tried, changed and judged."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch

from lightning_prune.allocation import PerBlock
from lightning_prune.anatomy import Block
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.method import Method, Scores
from lightning_prune.plan import Plan
from lightning_prune.studies.bench import Batches

__all__ = ["HIGHEST", "held_out_of", "moved", "removed_share", "with_known_scores", "with_shares"]

PASSAGE = 16
"""Windows that share so many tokens in a row are taken from the same place."""
HIGHEST = 0.95
"""Of a block, at most so much is removed."""


class _Scored:
    """A method whose scores are known; everything else is asked of the method itself."""

    evidence = None

    def __init__(self, method: Method, scores: Scores) -> None:
        self._method, self._scores = method, scores

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return dict(self._scores[block.index])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def __repr__(self) -> str:
        return repr(self._method)


Method.register(_Scored)


def with_known_scores(method: Method, scores: Scores) -> Method:
    """The same method, which does not look at the model again to score its units.

    Args:
        method: a method that scores the dense model.
        scores: by block index and kind of unit, what it makes of that model.
    """
    return cast(Method, _Scored(method, scores))


def with_shares(method: UnitPruning, fractions: Sequence[float]) -> UnitPruning:
    """The same method, which removes these fractions of its blocks."""
    changed = copy.copy(method)
    changed.allocation = PerBlock(list(fractions))
    return changed


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
