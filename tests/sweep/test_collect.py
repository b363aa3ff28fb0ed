"""What holds for every sweep: how it ends, and that a second one finds what the first one found."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from greenlet import getcurrent, greenlet

from lightning_prune.evidence import Evidence, Sweep
from lightning_prune.sweep import HiddenStates, InMemory, collect, visit
from tests.sweep.helpers import breaking, padded, shared_model, split, states_of, traces
from tests.sweep.kinds import KINDS, collected
from tests.tiny import tiny_model

ENDINGS = ("at the end", "closed", "by the caller's error", "by the model's error")

every_kind = pytest.mark.parametrize("kind", KINDS)
either_way = pytest.mark.parametrize("offload", [False, True], ids=["kept", "offloaded"])


def test_every_sweep_is_tried() -> None:
    """One that is missing in KINDS would escape these tests."""
    assert {evidence.sweep for evidence, _ in KINDS.values()} == set(Sweep.__args__)  # type: ignore[attr-defined]


def end(states: HiddenStates, kind: str, how: str) -> None:
    """Sweep, as far as that goes."""
    evidence, propagate = KINDS[kind]
    steps = collect(states, evidence, states.anatomy.blocks, propagate)
    if how == "at the end":
        for _ in steps:
            pass
    elif how == "closed":
        next(steps)
        steps.close()
    elif how == "by the caller's error":
        next(steps)
        with pytest.raises(InterruptedError, match="no decision"):
            steps.throw(InterruptedError("no decision"))
    else:
        last = states.anatomy.blocks[1].sites[-1].module
        with breaking(last), pytest.raises(RuntimeError, match="broken layer"):
            for _ in steps:
                pass


@pytest.fixture
def little() -> Iterator[None]:
    """What was there before is not looked through for what is left."""
    gc.freeze()
    yield
    gc.unfreeze()


def waiting() -> int:
    """How many calls were left in the middle of a block, of those made in this test."""
    calls = [one for one in gc.get_objects() if issubclass(type(one), greenlet)]
    return sum(bool(call) and call is not getcurrent() for call in calls)


@pytest.mark.parametrize(
    ("how", "offload"),
    [(how, number % 2 == 1) for number, how in enumerate(ENDINGS)],
)
@every_kind
def test_a_sweep_leaves_model_and_states_as_they_were(kind: str, how: str, offload: bool) -> None:
    """No hook, no gradient, the same weights; and it can be done again."""
    model = tiny_model("llama")
    before, weights = traces(model), copy.deepcopy(model.state_dict())
    states = states_of(model, split(padded("left"), 2), offload)
    expected = collected(states_of(shared_model("llama"), split(padded("left"), 2), offload), kind)
    end(states, kind, how)
    assert traces(model) == before
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)
    torch.testing.assert_close(collected(states, kind), expected, rtol=0, atol=0)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("kind", ["products by layer", "both models"])
def test_no_call_of_a_block_is_left_waiting(kind: str, how: str) -> None:
    """Nor are the activations that it holds."""
    states, before = states_of(shared_model("llama"), split(padded("left"), 2)), waiting()
    evidence, propagate = KINDS[kind]
    steps = collect(states, evidence, states.anatomy.blocks, propagate)
    next(steps)
    assert waiting() > before, "they are seen while they wait"
    steps.close()
    assert waiting() == before
    end(states, kind, how)
    assert waiting() == before


@every_kind
def test_one_sweep_after_another_finds_what_each_would_find_alone(kind: str) -> None:
    """On the same states, whatever was collected before."""
    model, batches = shared_model("llama"), split(padded("left"), 2)
    states = states_of(model, batches)
    for other in KINDS:
        end(states, other, "closed")
    alone = collected(states_of(model, batches), kind)
    torch.testing.assert_close(collected(states, kind), alone, rtol=0, atol=0)


@every_kind
def test_only_the_blocks_asked_for_are_yielded(kind: str) -> None:
    """With the same results, whatever the others are."""
    states = states_of(shared_model("llama"), split(padded("left"), 2))
    whole = [step for step in collected(states, kind) if step[0] == 1]
    assert whole
    part = collected(states, kind, [states.anatomy.blocks[1]])
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-7)


def test_methods_that_look_at_weights_alone_visit_the_blocks() -> None:
    """In their order, with nothing collected."""
    states = states_of(shared_model("llama"), [])
    found = list(visit(states.placement, states.anatomy.blocks))
    assert [(block.index, results) for block, results in found] == [(0, {}), (1, {}), (2, {})]


# --- where weights live ---


class Watched(InMemory):
    """Weights are there inside of the context that was asked for them, and NaN outside of it."""

    def __init__(self, states: HiddenStates) -> None:
        super().__init__(states.anatomy, states.device)
        self.asked: list[int] = []
        self._elsewhere: dict[int, list[torch.Tensor]] = {}
        for index in range(len(self.anatomy.blocks) + 1):
            self._take(index)

    def is_here(self, index: int) -> bool:
        return index not in self._elsewhere

    @contextmanager
    def blocks(self, blocks: Any) -> Iterator[None]:
        indices = [block.index for block in blocks]
        for index in indices:
            assert not self.is_here(index), f"block {index} is asked for twice"
            self.asked.append(index)
            for parameter, values in zip(
                self._parameters(index), self._elsewhere.pop(index), strict=True
            ):
                parameter.data.copy_(values)
        try:
            yield
        finally:
            for index in indices:
                self._take(index)

    def outside(self) -> Any:
        return self.blocks([self.anatomy.head])

    def _take(self, index: int) -> None:
        self._elsewhere[index] = [p.detach().clone() for p in self._parameters(index)]
        for parameter in self._parameters(index):
            parameter.data.fill_(torch.nan)

    def _parameters(self, index: int) -> list[torch.nn.Parameter]:
        """Of a block, or of the head; what stands in front of the blocks is always there."""
        return list([*self.anatomy.blocks, self.anatomy.head][index].module.parameters())


def watched(offload: bool = False) -> tuple[HiddenStates, Watched]:
    states = states_of(tiny_model("llama"), split(padded("left"), 2), offload)
    states.placement = placement = Watched(states)
    return states, placement


@either_way
@every_kind
def test_weights_are_asked_for_before_they_are_used(kind: str, offload: bool) -> None:
    """Also by those who are handed the block; and each is let go before it is asked for again."""
    states, placement = watched(offload)
    evidence, propagate = KINDS[kind]
    for block, _ in collect(states, evidence, states.anatomy.blocks, propagate):
        assert placement.is_here(block.index)
        assert all(site.module.weight.isfinite().all() for site in block.sites)
    assert set(placement.asked) >= {0, 1, 2}
    assert not any(map(placement.is_here, range(4)))
    plain = states_of(shared_model("llama"), split(padded("left"), 2), offload)
    torch.testing.assert_close(collected(states, kind), collected(plain, kind), rtol=0, atol=0)


@pytest.mark.parametrize("how", ENDINGS)
@every_kind
def test_weights_are_let_go_however_a_sweep_ends(kind: str, how: str) -> None:
    """Of all blocks and of the head."""
    states, placement = watched()
    end(states, kind, how)
    assert not any(map(placement.is_here, range(4)))


@pytest.mark.parametrize("kind", ["norms of the dense model", "products by layer", "both models"])
def test_weights_that_are_not_needed_are_not_asked_for(kind: str) -> None:
    """Those behind the last block that is wanted."""
    states, placement = watched()
    collected(states, kind, [states.anatomy.blocks[1]])
    assert placement.asked == [0, 1]


def test_what_the_caller_changes_stays_changed() -> None:
    """Where the weights go when they are let go."""
    states, placement = watched()
    evidence: Evidence = KINDS["moments by block"][0]
    with torch.no_grad():
        for block, _ in collect(states, evidence, states.anatomy.blocks, "block"):
            block.sites[-1].module.weight.fill_(block.index + 1)
    for block in states.anatomy.blocks:
        with placement.block(block):
            assert (block.sites[-1].module.weight == block.index + 1).all()
