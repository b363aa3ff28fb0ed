"""Rounds meet the budget step by step, and the gate gives back exactly what was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import (
    FLAP,
    Bias,
    Inverse,
    LeastSquares,
    PerBlock,
    Plan,
    Taylor,
    Wanda,
    WandaSP,
    distributed,
    prune,
    prune_in_rounds,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.pipeline import Gate, Recovery
from lightning_prune.pipeline.rounds import Round
from lightning_prune.plan import joined
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.processes import Pair


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def run(method: Any, rounds: int, **settings: Any) -> tuple[nn.Module, Plan, list[Round]]:
    model, told = even_model("llama"), []
    settings = {"validation": batches()} | settings
    plan = prune_in_rounds(model, method, batches(), rounds, told=told.append, **settings)
    return model, plan, told


@pytest.mark.parametrize(
    "method",
    [
        FLAP(ratio=0.5, repair=Bias()),  # which gives the model biases that it did not have
        FLAP(parameters=15_000),
        Taylor(ratio=0.5, attention_ratio=0.5),
    ],
    ids=repr,
)
def test_the_last_round_meets_the_budget(method: Any) -> None:
    """As many parameters are left as in one go, and every round takes an equal part."""
    at_once = even_model("llama")
    dense = parameters(at_once)
    prune(at_once, method, batches())
    found, plan, told = run(method, 3)
    assert parameters(found) == pytest.approx(parameters(at_once), abs=96)
    assert told[-1].parameters == parameters(found)
    assert [one.ratio / told[-1].ratio for one in told] == pytest.approx(
        [1 / 3, 2 / 3, 1], abs=0.05
    )
    assert all(one.parameters < dense and one.perplexity for one in told)
    assert [one["ratio"] for one in plan.provenance["rounds"]] == [one.ratio for one in told]


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize(
    ("allocation", "low", "high"),
    [
        (Inverse(importance="norm", min_share=0.2, max_share=0.55), 0.2, 0.55),
        (PerBlock(fractions=[0.6, 0.2, 0.4]), 0.2, 0.6),
    ],
    ids=["Inverse", "PerBlock"],
)
def test_shares_of_blocks_are_of_the_whole_budget(
    allocation: Any, low: float, high: float, rounds: int
) -> None:
    """Their limits hold for what is gone in the end, in however many rounds it went."""
    method = WandaSP(ratio=0.4, attention=False, allocation=allocation)
    model, _, _ = run(method, rounds)
    blocks = Anatomy(model).blocks
    dense = Anatomy(even_model("llama")).blocks
    gone = [1 - block.width / old.width for block, old in zip(blocks, dense, strict=True)]
    one = 1 / min(block.width for block in dense)
    assert min(gone) >= low - one
    assert max(gone) <= high + one
    if isinstance(allocation, PerBlock):
        assert gone == pytest.approx(allocation.fractions, abs=one)


def test_shares_that_cannot_be_are_refused_before_anything_is_measured() -> None:
    """By `check`, with the importance of blocks still unknown."""
    for method in (
        WandaSP(ratio=0.5, allocation=Inverse(max_share=0.4)),
        WandaSP(ratio=0.5, allocation=PerBlock(fractions=[0.2] * 3)),
    ):
        with pytest.raises(ValueError, match="asked for"):
            method.check(Anatomy(even_model("llama")))


def test_one_round_is_the_method_itself() -> None:
    """The same units and the same weights, bit for bit."""
    at_once = even_model("llama")
    prune(at_once, FLAP(ratio=0.4), batches())
    found, _, _ = run(FLAP(ratio=0.4), 1)
    assert_same_state(found, state(at_once))


def test_survivors_are_scored_anew() -> None:
    """The second round decides on the model that the first round left, as a plan of its own."""
    cut, plan, _ = run(FLAP(ratio=0.5), 2)
    model = even_model("llama")
    first = prune(model, FLAP(ratio=0.25), batches())
    left = sum(parameter.numel() for parameter in cut.parameters())
    both = joined(first, prune(model, FLAP(parameters=left), batches()))
    for kind in plan.kinds:
        for block in plan.blocks(kind):
            assert torch.equal(plan.kept(kind, block), both.kept(kind, block))


def test_the_plan_makes_the_same_model_again(tmp_path: Path) -> None:
    """In one go, from the dense model, with all that repair and recovery did to the weights."""
    for recovery in (None, Recovery(2, batches(), 1e-3)):
        model, plan, _ = run(FLAP(ratio=0.5), 3, recovery=recovery)
        plan.save(tmp_path, model)
        again = even_model("llama")
        loaded = Plan.load(tmp_path)
        assert loaded.fingerprint() == plan.fingerprint()
        prune(again, FLAP(ratio=0.5, plan=loaded))
        assert_same_state(again, state(model))


def cutting(ratio: float = 0.5) -> Taylor:
    """A method by which the random model's perplexity rises round by round."""
    return Taylor(ratio=ratio, repair=LeastSquares(trust=0))


@pytest.fixture
def gate() -> float:
    """A perplexity that the first of three rounds of `cutting` passes and the second does not."""
    _, _, told = run(cutting(), 3)
    first, second = told[0].perplexity, told[1].perplexity
    assert first is not None
    assert second is not None
    assert first < second
    return (first + second) / 2


def test_a_round_over_the_gate_is_taken_back(gate: float) -> None:
    """The model is that of the first round, bit for bit, and so is the plan."""
    first = even_model("llama")
    expected = prune(first, cutting(0.5 / 3), batches())
    model, plan, told = run(cutting(), 3, gate=Gate(gate))
    assert_same_state(model, state(first))
    assert type(model).__name__ == type(first).__name__
    assert model.config.to_dict() == first.config.to_dict()
    for kind in expected.kinds:
        for block, kept in expected.blocks(kind).items():
            assert plan.kept(kind, block).tolist() == kept.index_U.tolist()
    assert [one.kept for one in told] == [True, False]
    assert "taken back" in str(told[-1])


def test_a_round_over_the_gate_is_kept_if_asked(gate: float) -> None:
    """It is the last one."""
    model, _, told = run(cutting(), 3, gate=Gate(gate, on_gate="stop"))
    assert [one.kept for one in told] == [True, True]
    assert told[-1].parameters == parameters(model)


def test_if_the_first_round_is_over_nothing_is_changed() -> None:
    """It is an error, and the dense model is there again."""
    model = even_model("llama")
    dense, cls = state(model), type(model)
    with pytest.raises(ValueError, match="first of 2 rounds"):
        prune_in_rounds(model, FLAP(ratio=0.5), batches(), 2, validation=batches(), gate=Gate(1.5))
    assert_same_state(model, dense)
    assert type(model) is cls


def test_a_gate_may_be_relative_to_the_dense_model() -> None:
    """The lower of the two limits holds."""
    assert Gate(max_increase=1.5).limit(10.0) == 15
    assert Gate(12.0, 1.5).limit(10.0) == 12


def test_recovery_lowers_the_loss_and_is_reproducible() -> None:
    """The same seed gives the same weights; types and modes are as before."""
    without, _, _ = run(FLAP(ratio=0.5), 2)
    results = [run(FLAP(ratio=0.5), 2, recovery=Recovery(3, batches(), 1e-3)) for _ in range(2)]
    assert_same_state(results[0][0], state(results[1][0]))
    reached, before = results[0][2][0].perplexity, run(FLAP(ratio=0.5), 2)[2][0].perplexity
    assert reached is not None
    assert before is not None
    assert reached < before
    assert not results[0][0].training
    assert all(parameter.grad is None for parameter in results[0][0].parameters())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": Wanda(sparsity=0.5)}, "cuts units"),
        ({"rounds": 1000}, "too many"),
        ({"rounds": 0}, "rounds=0"),
        ({"gate": Gate(2.0), "validation": None}, "validation"),
    ],
)
def test_mistakes_are_found_before_anything_is_done(settings: dict[str, Any], match: str) -> None:
    """The model is as it was."""
    model = even_model("llama")
    dense = state(model)
    arguments = {"method": FLAP(ratio=0.5), "rounds": 2, "validation": batches()} | settings
    with pytest.raises(ValueError, match=match):
        prune_in_rounds(model, batches=batches(), **arguments)
    assert_same_state(model, dense)


def test_gates_that_nothing_passes_are_refused() -> None:
    """Less than the dense model's perplexity is a mistake."""
    with pytest.raises(ValueError, match=r"1\.5 for half as much again"):
        Gate(max_increase=0.5)
    with pytest.raises(ValueError, match="rollback"):
        Gate(on_gate="back")  # type: ignore[arg-type]


def prune_own_share(recovers: bool) -> Plan:
    """Prunes in rounds with this process's share of every text."""
    mine, model = batches(size=1)[distributed.rank() :: 2], even_model("llama")
    recovery = Recovery(2, mine, 1e-3) if recovers else None
    return prune_in_rounds(
        model, FLAP(ratio=0.5), mine, 2, validation=mine, gate=Gate(1e3), recovery=recovery
    )


def test_two_processes_do_as_one(pair: Pair) -> None:
    """The same units and perplexities; and with recovery, the same weights in both."""
    plans = pair.run(prune_own_share, False).results
    recovered = pair.run(prune_own_share, True).results
    _, alone, _ = run(FLAP(ratio=0.5), 2)
    for rank in (0, 1):
        found = plans[rank]
        for block, kept in alone.blocks("neuron").items():
            assert found.kept("neuron", block).tolist() == kept.index_U.tolist()
        for one, expected in zip(
            found.provenance["rounds"], alone.provenance["rounds"], strict=True
        ):
            assert one == pytest.approx(expected, rel=1e-4)
    assert plans[0].fingerprint() == plans[1].fingerprint()
    assert recovered[0].fingerprint() == recovered[1].fingerprint()
