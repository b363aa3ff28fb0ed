"""Shares of blocks: moved, tried with scores that are known, and judged by text of their own."""

from __future__ import annotations

import random

import pytest
import torch

from lightning_prune import FLAP, PerBlock, prune
from lightning_prune.methods.known_scores import KnownScores
from lightning_prune.studies.distributions import (
    _passages,
    held_out_of,
    moved,
    with_shares,
)
from tests.contract.cases import assert_same_state, batches, even_model, state


def test_known_scores_give_what_scoring_gives() -> None:
    """A trial prunes as the method with those shares would."""
    shares, ours, alone = [0.5, 0.3, 0.1], even_model("llama"), even_model("llama")
    plan = prune(even_model("llama"), FLAP(ratio=0.3, keep_scores=True), batches())
    known = {block: {kind: plan.scores(kind, block) for kind in plan.kinds} for block in range(3)}
    prune(ours, KnownScores.of(with_shares(FLAP(ratio=0.3), shares), known), batches())
    prune(alone, FLAP(ratio=0.3, allocation=PerBlock(shares)), batches())
    assert_same_state(ours, state(alone))


def test_trials_are_not_judged_by_the_text_that_chose_or_evaluates() -> None:
    """A window that shares a passage with one that is taken is left out."""
    text = torch.arange(400)
    taken = [{"input_ids": text[:64][None]}]
    training = [{"input_ids": text.view(-1, 40)}]
    found = held_out_of(training, taken, 3, 40)
    assert [int(one["input_ids"][0, 0]) for one in found] == [80, 120, 160]
    with pytest.raises(ValueError, match="8 windows that share nothing"):
        held_out_of(training, taken, 9, 40)
    assert len(_passages([1, 2, 3], 2)) == 2


def test_moving_budget_keeps_it() -> None:
    """Whatever the sizes, and never out of range."""
    sizes, rng = [100, 50, 25], random.Random(0)
    shares = [0.3, 0.3, 0.3]
    for _ in range(200):
        shares = moved(shares, sizes, 0.3, rng)
        assert all(0 <= share <= 0.95 for share in shares)
    mean = sum(f * n for f, n in zip(shares, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(0.3, abs=4e-4)
