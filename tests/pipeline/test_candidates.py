"""Candidates: each is what pruning gives, wherever blocks do not depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import (
    CFSP,
    FLAP,
    Bias,
    GQATaylor,
    Magnitude,
    MagnitudeSP,
    PerBlock,
    ResidualFit,
    SparseGPT,
    StructuredOBS,
    Wanda,
    WandaSP,
    WeightSNIP,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.journal import Journal
from lightning_prune.pipeline import prune
from lightning_prune.pipeline.candidates import Candidates, make_candidates
from lightning_prune.studies.slots import Per, Slots, share_grid
from lightning_prune.surgery import give_bias
from tests.contract.cases import batches, even_model

MEAN = 0.5  # of 4 groups and 24 neurons whole ones
SHARES = share_grid(MEAN, 0.5)
ALIKE = PerBlock(fractions=[MEAN] * 3)


def made(method: Any, folder: Path, model_type: str = "llama", per: Per = "block") -> Candidates:
    model, alike = even_model(model_type), replace(method, allocation=ALIKE)
    return make_candidates(model, alike, batches(), SHARES, folder, apart=per == "part")


def stitched(
    candidates: Candidates, slots: Slots, levels: Sequence[int], model_type: str = "llama"
) -> nn.Module:
    """The dense model with candidates in it, nothing cut."""
    model = even_model(model_type)
    for block in Anatomy(model).blocks:
        chosen = [
            (slot.part, slot.shares[level])
            for slot, level in zip(slots.each, levels, strict=True)
            if slot.part.index == block.index and level
        ]
        candidates.stitch(block, chosen)
    return model


def same_logits(one: nn.Module, other: nn.Module) -> None:
    ids = batches()[0]["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(one(ids).logits, other(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "per", "levels"),
    [
        (Magnitude(sparsity=MEAN), "block", [1, 3, 2]),
        (Magnitude(sparsity=MEAN), "part", [0, 3, 1, 3, 2, 2]),
        (Magnitude(sparsity=MEAN, exclude="*.o_proj"), "site", [1, 3, 2] * 6),
        (MagnitudeSP(ratio=MEAN, repair=None, attention=False), "block", [3, 0, 3]),
        (MagnitudeSP(ratio=MEAN, repair=None), "part", [1, 2, 1, 3, 2, 3]),
    ],
    ids=lambda value: str(value),
)
def test_a_stitched_model_is_the_pruned_one(
    method: Any, per: Per, levels: list[int], tmp_path: Path
) -> None:
    """Of methods that look at one block alone: by block, by part, by Linear."""
    slots = Slots(method, method.blocks(Anatomy(even_model("llama"))), per, SHARES)
    shares = slots.shares(levels)
    mean = sum(f * n for f, n in zip(shares, slots.sizes, strict=True)) / sum(slots.sizes)
    budget = "sparsity" if isinstance(method, Magnitude) else "ratio"
    pruned = even_model("llama")
    plan = prune(pruned, replace(slots.with_shares(shares), **{budget: mean}))
    same_logits(stitched(made(method, tmp_path, per=per), slots, levels), pruned)
    assert slots.removed_by(plan) == pytest.approx(shares, abs=0.05)


@pytest.mark.parametrize(
    ("method", "model_type"),
    [
        (Wanda(sparsity=MEAN), "llama"),
        (SparseGPT(sparsity=MEAN, propagate="layer"), "qwen2"),
        (ResidualFit(sparsity=MEAN), "llama"),
        (WeightSNIP(sparsity=MEAN), "llama"),
        (FLAP(ratio=MEAN, repair=Bias()), "llama"),
        (WandaSP(ratio=MEAN), "phi3"),
        (CFSP(ratio=MEAN), "llama"),
        (StructuredOBS(ratio=MEAN), "llama"),
        (GQATaylor(ratio=MEAN, mlp=False), "opt"),
    ],
    ids=lambda value: str(value),
)
def test_at_the_mean_share_all_candidates_together_are_the_pruned_model(
    method: Any, model_type: str, tmp_path: Path
) -> None:
    """With every kind of evidence, propagation and repair: what is made beside changes nothing."""
    alike = replace(method, allocation=ALIKE)
    pruned = even_model(model_type)
    prune(pruned, alike, batches())
    slots = Slots(method, method.blocks(Anatomy(even_model(model_type))), "block", SHARES)
    level = SHARES.index(MEAN) + 1
    candidates = made(method, tmp_path, model_type)
    same_logits(stitched(candidates, slots, [level] * 3, model_type), pruned)


@pytest.mark.parametrize(
    "method", [Wanda(sparsity=MEAN, propagate="layer"), WandaSP(ratio=MEAN)], ids=str
)
@pytest.mark.parametrize("stop", [3, 7, 11])
def test_a_run_that_was_stopped_goes_on_to_the_same(
    method: Any, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever block: bit for bit."""
    whole = made(method, tmp_path / "whole")
    puts, real = 0, Journal.put

    def stopping(self: Journal, *args: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts == stop:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            made(method, tmp_path / "stopped")
    resumed = made(method, tmp_path / "stopped")
    assert resumed.complete
    for index in range(3):
        for share in SHARES:
            one, other = whole.decision(index, share), resumed.decision(index, share)
            for table in ("masks", "kept", "weights"):
                ours, theirs = getattr(one, table), getattr(other, table)
                assert ours.keys() == theirs.keys()
                for name in ours:
                    torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And candidates of other work are refused."""
    made(Wanda(sparsity=MEAN), tmp_path)
    monkeypatch.setattr("lightning_prune.pipeline.candidates._Levels", None)
    assert made(Wanda(sparsity=MEAN), tmp_path).complete
    with pytest.raises(ValueError, match="steps of other work"):
        made(Magnitude(sparsity=MEAN), tmp_path)


def test_a_bias_is_given_where_a_candidate_has_one(tmp_path: Path) -> None:
    """Of zeros; candidates keep theirs beside their weight."""
    linear = nn.Linear(3, 2, bias=False)
    give_bias(linear)
    torch.testing.assert_close(linear.bias, torch.zeros(2))
    decision = made(FLAP(ratio=MEAN, repair=Bias()), tmp_path).decision(0, MEAN)
    assert {name.rpartition(".")[2] for name in decision.weights} == {"weight", "bias"}
