"""Hidden states block by block are those of the model's own forward."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.sweep import HiddenStates
from tests.sweep.helpers import (
    block_inputs,
    breaking,
    padded,
    shared_model,
    split,
    states_of,
    tokens_of,
    traces,
)
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

SLIDING = ("mistral", "gemma2", "gemma3_text")
ATTENTION = [
    (model_type, attention)
    for model_type in MODEL_TYPES
    for attention in ("eager", "sdpa")
    if (model_type, attention) != ("gemma2", "sdpa")  # which transformers does not offer
]


@torch.no_grad()
def stepped(model: nn.Module, batches: list[dict[str, torch.Tensor]]) -> list[list[torch.Tensor]]:
    """Block by block: the hidden states of every batch in front of each block."""
    states = states_of(model, batches)
    found = []
    with states.from_start():
        for block in states.anatomy.blocks:
            found.append([states.entering(i) for i in states.indices])
            states.advance(block)
    return found


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize(("model_type", "attention"), ATTENTION)
def test_they_equal_the_models_own(model_type: str, attention: str, side: str) -> None:
    """Bit for bit, for batches of several sizes in one calibration set."""
    model = tiny_model(model_type)
    model.set_attn_implementation(attention)
    batch = padded(side)
    batches = [batch, *split(batch, 2)]
    expected = [block_inputs(model, one) for one in batches]
    for index, hidden in enumerate(stepped(model, batches)):
        for i, one in enumerate(batches):
            kept = tokens_of(one)
            torch.testing.assert_close(hidden[i][kept], expected[i][index][kept], rtol=0, atol=0)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_they_do_not_depend_on_the_batch_size(model_type: str, side: str) -> None:
    """Sequence by sequence or all at once."""
    model, batch = shared_model(model_type), padded(side)
    kept = tokens_of(batch)
    for whole, single in zip(stepped(model, [batch]), stepped(model, split(batch, 1)), strict=True):
        torch.testing.assert_close(torch.cat(single)[kept], whole[0][kept], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_they_equal_the_models_own_in_bfloat16(model_type: str) -> None:
    """The model's type is kept on the way."""
    model = tiny_model(model_type, dtype=torch.bfloat16)
    batch = padded("left")
    for hidden, expected in zip(stepped(model, [batch]), block_inputs(model, batch), strict=True):
        assert hidden[0].dtype == torch.bfloat16
        kept = tokens_of(batch)
        torch.testing.assert_close(hidden[0][kept], expected[kept], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model_type", "attention"), [pair for pair in ATTENTION if pair[0] in SLIDING]
)
def test_every_block_gets_its_own_attention_mask(model_type: str, attention: str) -> None:
    """A window of 8 shows in 14 tokens: a model that sees all of them gives other states."""
    near, far = tiny_model(model_type), tiny_model(model_type, sliding_window=64)
    for model in (near, far):
        model.set_attn_implementation(attention)
    batch = padded("none")
    states, others = stepped(near, [batch]), stepped(far, [batch])
    assert (states[1][0] - others[1][0]).abs().max() > 1e-3
    torch.testing.assert_close(states[2][0], block_inputs(near, batch)[2], rtol=0, atol=0)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_logits_are_the_models_own(model_type: str, side: str) -> None:
    """Final norm, head and soft capping included."""
    model, batch = shared_model(model_type), padded(side)
    states = states_of(model, [batch])
    with states.from_start(), torch.no_grad():
        for block in states.anatomy.blocks:
            states.advance(block)
        expected = model(**batch, use_cache=False).logits
        found = states.logits(0, states.entering(0))
    kept = tokens_of(batch)
    torch.testing.assert_close(found[kept], expected[kept], rtol=0, atol=0)


def test_position_ids_are_passed_on() -> None:
    """Positions of the caller's own reach the blocks."""
    model = tiny_model("llama")
    batch = {"input_ids": tiny_batch(2, 12), "position_ids": torch.arange(12)[None] * 3}
    expected = block_inputs(model, batch)
    for index, hidden in enumerate(stepped(model, [batch])):
        torch.testing.assert_close(hidden[0], expected[index], rtol=0, atol=0)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_nothing_is_left_behind(model_type: str) -> None:
    """The blocks have their own forward again."""
    model = shared_model(model_type)
    before = traces(model)
    states = states_of(model, [padded("left")])
    with states.from_start():
        states.logits(0, states.entering(0))
    assert traces(model) == before


def test_a_failing_model_is_left_as_it_was() -> None:
    """An error inside the model's forward puts the blocks' forwards back."""
    model = tiny_model("llama")
    before = traces(model)
    with breaking(model.model.rotary_emb), pytest.raises(RuntimeError, match="broken"):
        states_of(model, [{"input_ids": tiny_batch()}])
    assert traces(model) == before


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (tiny_batch(), "a batch is a dict with input_ids.*got Tensor"),
        ([tiny_batch()], "a batch is a dict with input_ids.*got list"),
        ({"ids": tiny_batch()}, r"a batch is a dict with input_ids.*with \['ids'\]"),
        ({"input_ids": [[1, 2]]}, "a batch is a dict with input_ids, a tensor"),
        ({"input_ids": tiny_batch()[0]}, r"must be of shape \(B, T\).*got \(12,\)"),
        ({"input_ids": tiny_batch()[:0]}, r"must be of shape \(B, T\).*got \(0, 12\)"),
        ({"input_ids": tiny_batch()[:, :0]}, r"must be of shape \(B, T\).*got \(2, 0\)"),
    ],
)
def test_what_is_no_batch_is_refused(batch: Any, message: str) -> None:
    """A message about the batch, not from deep inside the model."""
    with pytest.raises(ValueError, match=message):
        states_of(tiny_model("llama"), [batch])


@pytest.mark.parametrize("model_type", ["llama", "opt", "gemma3_text"])
def test_nothing_runs_behind_the_last_block(model_type: str) -> None:
    """Where only what enters the first one is asked for: on the CPU the final norm takes long."""
    model, ran = tiny_model(model_type), []
    ends = ("model.norm", "decoder.final_layer_norm")
    (norm,) = (module for name, module in model.named_modules() if name.endswith(ends))
    norm.register_forward_hook(lambda *_: ran.append(1))
    states = states_of(model, [padded("right")])
    with states.from_start():
        pass
    assert not ran
    model(**padded("right"))
    assert ran


def test_tokens_are_counted_without_padding() -> None:
    """Counted: no padding. Predicted: no padding, and not the first of a sequence."""
    batch = padded("right", batch=2, tokens=8)
    states = states_of(tiny_model("llama"), [batch, padded("none", 1, 8)])
    keep_BT = states.keep(0)
    assert keep_BT is not None
    assert int(keep_BT.sum()) == 8 + 5
    assert states.keep(1) is None, "all tokens count"
    assert states.predicted() == 7 + 4 + 7


# --- where they stand ---


def standing(states: HiddenStates) -> list[torch.Tensor]:
    return [states.entering(i).clone() for i in states.indices]


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "opt"])
def test_every_start_is_in_front_of_the_first_block(model_type: str, offload: bool) -> None:
    """Wherever the sweep before it went, and however it ended."""
    model, batches = shared_model(model_type), split(padded("left"), 2)
    states = states_of(model, batches, offload)
    expected = [block_inputs(model, batch)[0] for batch in batches]
    for ends in (False, True, False):
        with suppress(InterruptedError), states.from_start():
            torch.testing.assert_close(standing(states), expected, rtol=0, atol=0)
            states.advance(states.anatomy.blocks[0])
            states.put(0, torch.zeros_like(states.entering(0)))
            if ends:
                raise InterruptedError
    with states.from_start():
        torch.testing.assert_close(standing(states), expected, rtol=0, atol=0)


def test_nothing_is_held_between_two_sweeps() -> None:
    """The second start makes the hidden states anew; they would be in the way until then."""
    states = states_of(shared_model("llama"), split(padded("none"), 1))
    with states.from_start():
        assert list(states.indices) == [0, 1, 2]
    assert not states.indices


@pytest.mark.parametrize(
    ("windows", "size", "batches"),
    [(0, 2, 3), (1, 2, 1), (2, 2, 1), (3, 2, 2), (9, 2, 3), (4, 1, 4)],
)
def test_so_many_windows_are_taken_in_whole_batches(windows: int, size: int, batches: int) -> None:
    """From the first on; of a set with 5 members."""
    states = states_of(shared_model("llama"), split(padded("none", batch=5), size))
    with states.from_start(windows):
        assert list(states.indices) == list(range(batches))
    with states.from_start():
        assert len(states.indices) == -(-5 // size)


def test_states_beside_others_go_their_own_way() -> None:
    """From the same place, and neither is moved with the other."""
    states = states_of(shared_model("llama"), split(padded("left"), 2))
    block = states.anatomy.blocks[0]
    with states.from_start():
        before, other = standing(states), states.beside()
        other.advance(block)
        torch.testing.assert_close(standing(states), before, rtol=0, atol=0)
        states.advance(block)
        torch.testing.assert_close(standing(states), standing(other), rtol=0, atol=0)


def test_losses_are_those_of_every_target() -> None:
    """By the model's own logits; 0 where nothing is asked."""
    model, batch = shared_model("llama"), padded("left")
    states = states_of(model, [batch])
    with states.from_start(), torch.no_grad():
        for block in states.anatomy.blocks:
            states.advance(block)
        loss_BT = states.losses(0, states.entering(0))
        logits_BTV = model(**batch, use_cache=False).logits
    first_B = batch["attention_mask"].argmax(dim=1)
    for b, first in enumerate(first_B.tolist()):
        expected_T = nn.functional.cross_entropy(
            logits_BTV[b, first:-1], batch["input_ids"][b, first + 1 :], reduction="none"
        )
        torch.testing.assert_close(loss_BT[b, first:-1], expected_T, rtol=1e-5, atol=1e-6)
        assert not loss_BT[b, :first].any()
        assert loss_BT[b, -1] == 0
