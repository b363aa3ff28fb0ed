"""Several processes, each with its own share of the calibration set, decide as one would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import (
    AFR,
    ALPS,
    CFSP,
    FLAP,
    Ablation,
    Bias,
    BlockFit,
    DropBlocks,
    GQATaylor,
    Inverse,
    Plan,
    ResidualFit,
    Sensitivity,
    SparseGPT,
    StructuredOBS,
    Wanda,
    attribute,
    distributed,
    load,
    prune,
    save,
)
from lightning_prune.digests import fingerprint
from lightning_prune.pipeline.unfinished import Unfinished
from lightning_prune.repair import rows
from tests.contract.cases import batches, even_model
from tests.processes import Pair

METHODS = {
    "wanda": Wanda(sparsity=0.5),
    "wanda 2:4": Wanda(pattern="2:4"),
    "taylor": GQATaylor(ratio=0.25),
    "sparsegpt": SparseGPT(sparsity=0.5),
    "sparsegpt by row": SparseGPT(sparsity=0.5, scope="row"),
    "sparsegpt 2:4": SparseGPT(pattern="2:4", propagate="layer"),
    "ablation": Ablation(sparsity=0.5),
    "alps": ALPS(sparsity=0.5),
    "residual fit": ResidualFit(sparsity=0.5),
    "residual fit unevenly": ResidualFit(sparsity=0.37),
    "flap": FLAP(ratio=0.3, repair=Bias()),
    "obs": StructuredOBS(ratio=0.3, allocation=Inverse(importance="angular")),
    "afr": AFR(ratio=0.3),
    "drop": DropBlocks(count=1, part="mlp"),
    "cfsp": CFSP(ratio=0.3),
    "sensitivity": Wanda(sparsity=0.5, propagate="layer", allocation=Sensitivity(windows=3)),
}
SHARES = {"in turn": [0, 1, 0, 1], "uneven": [0, 0, 1, 0], "one has none": [0, 0, 0, 0]}
ONLY_IN_TURN = {
    "sensitivity",
    "flap",
    "cfsp",
    "drop",
    "sparsegpt 2:4",
    "ablation",
    "residual fit unevenly",
}
# (Sensitivity tries the first windows, as a distributed loader hands them out.)


Decided = tuple[Plan, dict[str, torch.Tensor]]
"""The plan, and the weights behind it."""


def decided(name: str, data: list[dict[str, torch.Tensor]]) -> Decided:
    """With chunks so small that each process has some."""
    model, before = even_model("llama"), rows.ROWS
    rows.ROWS = 8
    try:
        return prune(model, METHODS[name], data), model.state_dict()
    finally:
        rows.ROWS = before


def decided_of_share(name: str, owners: list[int]) -> Decided:
    """Of the batches that this process owns."""
    pairs = zip(batches(size=1), owners, strict=True)
    return decided(name, [batch for batch, owner in pairs if owner == distributed.rank()])


def error_without_batches(name: str) -> str:
    """In both processes, and neither waits for the other."""
    try:
        decided(name, [])
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_decide_as_one(name: str, pair: Pair) -> None:
    """Same masks and units for every share of the batches, even if one process has none.

    And the same weights, but for the order in which sums are taken: where they are corrected, each
    process has solved for some of them.
    """
    alone, alone_weights = decided(name, batches(size=1))
    for share, owners in SHARES.items():
        if share == "in turn" or name not in ONLY_IN_TURN:
            (first, weights), second = pair.run(decided_of_share, name, owners).results
            assert_same_plan(first, alone)
            assert first.fingerprint() == second[0].fingerprint()
            for key, weight in weights.items():
                assert torch.equal(weight, second[1][key]), key
                torch.testing.assert_close(weight, alone_weights[key], rtol=1e-5, atol=1e-5)


def trained_of_share(owners: list[int], target: Any) -> Decided:
    """By its share, with what is left of the blocks trained."""
    pairs = zip(batches(size=1), owners, strict=True)
    share = [batch for batch, owner in pairs if owner == distributed.rank()]
    model, fit = even_model("llama"), BlockFit(steps=4, target=target, rate=1e-3, held_out=0)
    return prune(model, Wanda(sparsity=0.5, block_fit=fit), share), model.state_dict()


@pytest.mark.parametrize("target", ["stream", "logits"])
@pytest.mark.parametrize("share", SHARES)
def test_two_processes_train_the_same_weights(share: str, target: str, pair: Pair) -> None:
    """Those of one process, where one has all the text."""
    (first, weights), (second, others) = pair.run(trained_of_share, SHARES[share], target).results
    alone, alone_weights = trained_of_share([0, 0, 0, 0], target)
    assert_same_plan(first, alone)
    assert first.fingerprint() == second.fingerprint()
    assert any(note["steps"] for note in first.provenance["block_fit"])
    for key, weight in weights.items():
        assert torch.equal(weight, others[key]), key
        if share == "one has none":
            torch.testing.assert_close(weight, alone_weights[key])


@pytest.mark.parametrize("name", METHODS)
def test_no_tokens_at_all_are_refused_in_both_processes(name: str, pair: Pair) -> None:
    """By every method that calibrates."""
    for error in pair.run(error_without_batches, name).results:
        assert "no calibration tokens" in error


def assert_same_plan(plan: Plan, expected: Plan) -> None:
    assert sorted(plan.mask_names) == sorted(expected.mask_names)
    for name in expected.mask_names:
        assert torch.equal(plan.mask(name), expected.mask(name)), name
    assert sorted(plan.kinds) == sorted(expected.kinds)
    for kind in expected.kinds:
        for block, kept in expected.blocks(kind).items():
            assert plan.kept(kind, block).tolist() == kept.index_U.tolist()


def stopped_in_files(folder: str, name: str, stop: bool) -> tuple[str, list[str]]:
    """A model that stays in its files, with steps kept; what it was decided and the files there."""

    class Stopped(Unfinished):
        def put(self, *step: Any) -> None:
            if stop and len(list(Path(folder, "unfinished").glob("*.json"))) == 2:
                distributed.barrier()
                raise InterruptedError
            super().put(*step)

    work = {"method": name}
    changes = Path(folder, "changes")
    model = load(Path(folder, "model"), placement="checkpoint", changes=changes)
    rank, size = distributed.rank(), distributed.world_size()
    try:
        kept = Stopped(Path(folder, "unfinished"), work)
        plan = prune(model, METHODS[name], batches(size=1)[rank::size], resume=kept)
    except InterruptedError:
        return "stopped", []
    distributed.barrier()
    there = sorted(os.listdir(changes))
    distributed.barrier()
    return plan.fingerprint() + fingerprint(model), there


@pytest.mark.parametrize("name", ["wanda", "residual fit", "obs"])
def test_two_processes_share_the_files_of_a_model(name: str, pair: Pair, tmp_path: Path) -> None:
    """And go on together where they were stopped; the result is that of one process."""
    save(even_model("llama"), tmp_path / "model")
    alone = even_model("llama")
    plan = prune(alone, METHODS[name], batches(size=1))
    assert pair.run(stopped_in_files, str(tmp_path), name, True).results[0] == ("stopped", [])
    first, second = pair.run(stopped_in_files, str(tmp_path), name, False).results
    assert first == second
    assert first[0] == plan.fingerprint() + fingerprint(alone)
    assert len(first[1]) in (2, 3)  # one for each block that was changed


def attributed(owners: list[int]) -> dict[str, torch.Tensor]:
    """Of the batches that this process owns."""
    pairs = zip(batches(size=1), owners, strict=True)
    own = [batch for batch, owner in pairs if owner == distributed.rank()]
    return dict(attribute(even_model("llama"), own).values)


@pytest.mark.parametrize("owners", SHARES.values(), ids=list(SHARES))
def test_two_processes_attribute_as_one(owners: list[int], pair: Pair) -> None:
    """However the samples are shared out, and both get all of it."""
    alone = attributed([0] * 4)
    first, second = pair.run(attributed, owners).results
    for name, value_U in alone.items():
        torch.testing.assert_close(first[name], value_U, rtol=1e-5, atol=1e-6)
        assert torch.equal(first[name], second[name])
