"""The gradient sweep gives the gradients that autograd gives for the whole model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.anatomy import tasks
from lightning_prune.evidence import Feature, Gradients, Objective, TaskLoss
from lightning_prune.sweep import HiddenStates, backward, memory
from lightning_prune.sweep.backward import gradient_sweep
from tests.sweep.gradients import assert_gradients_equal, autograd, either_way, swept
from tests.sweep.helpers import (
    breaking,
    counting_blocks,
    padded,
    shared_model,
    split,
    states_of,
    traces,
)
from tests.tiny import MODEL_TYPES, tiny_model


@either_way
@pytest.mark.parametrize(("side", "size"), [("none", 1), ("left", 3), ("right", 2)])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_they_equal_autograds(model_type: str, side: str, size: int, whole: bool) -> None:
    """Every site of every block, with padding, in batches of any size."""
    model, batch = shared_model(model_type), padded(side)
    found = swept(model, split(batch, size), whole=whole)
    assert_gradients_equal(found, autograd(model, batch))


OBJECTIVES = [
    TaskLoss(),
    TaskLoss(labels="reference"),
    Feature(kind="nuclear"),
    Feature(kind="l1", modules="all"),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_both_ways_give_the_same_numbers(model_type: str, objective: Objective) -> None:
    """The whole model at once, or block by block: bit for bit, but for sums of several terms."""
    batches = split(padded("left"), 2)
    one, other = (
        swept(shared_model(model_type), batches, True, whole=whole, objective=objective)
        for whole in (True, False)
    )
    rounding = 1e-4 if objective == OBJECTIVES[-1] else 0
    for name in one:
        for term in ("first_OI", "square_OI"):
            a, b = getattr(one[name], term), getattr(other[name], term)
            torch.testing.assert_close(a, b, rtol=rounding, atol=rounding * float(b.abs().max()))


@pytest.mark.parametrize(
    ("free", "offload", "passes"),
    [(10**9, False, 1), (10**9, True, 2), (10**5, False, 2)],
    ids=["enough", "offloading", "too little"],
)
def test_the_whole_model_runs_at_once_where_it_fits(
    free: int, offload: bool, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every block runs a second time; the first one once more, to see how much it holds."""
    monkeypatch.setattr(memory, "free_on_device", lambda _: free)
    with counting_blocks(model := tiny_model("llama")) as seen:
        swept(model, split(padded("none"), 1), offload=offload)
    assert len(seen) - (not offload) == passes * 3 * 3


@pytest.mark.parametrize("blocks", [1, 2, 5, 9])
def test_inputs_that_do_not_fit_are_made_again(
    blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of every √L-th block are kept; the numbers are the same, for one more pass forward."""
    batches = split(padded("left"), 2)
    expected = swept(tiny_model("llama", num_hidden_layers=blocks), batches, True, whole=False)
    monkeypatch.setattr(memory, "free_on_device", lambda _: 0)
    made = list[set[int]]()
    kept = backward._inputs_of_blocks

    def noting(*args: Any) -> dict[int, HiddenStates]:
        made.append(set(inputs := kept(*args)))
        return inputs

    monkeypatch.setattr(backward, "_inputs_of_blocks", noting)
    with counting_blocks(model := tiny_model("llama", num_hidden_layers=blocks)) as seen:
        numbers = swept(model, batches, True)
    for name, gradients in expected.items():
        assert torch.equal(numbers[name].first_OI, gradients.first_OI)
        assert torch.equal(numbers[name].square_OI, gradients.square_OI)
    assert set().union(*made) == set(range(blocks))
    assert max(map(len, made)) <= blocks**0.5 + 2
    assert len(seen) <= 3 * blocks * len(batches) + 1  # one block more, to see whether all fit


@either_way
def test_the_heads_gradient_is_autograds(whole: bool) -> None:
    """The output layer can be asked for too; it comes first."""
    model, batch = tiny_model("llama"), padded("left")
    copied = copy.deepcopy(model)
    expected = autograd(copied, batch)
    found = swept(model, split(batch, 2), whole=whole, head=True)
    assert next(iter(found)) == "lm_head.weight"
    one = found.pop("lm_head.weight")
    assert_gradients_equal(found, expected)
    reference = copy.deepcopy(model).requires_grad_()
    labels_BT = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    first = batch["attention_mask"].argmax(dim=1)
    labels_BT[torch.arange(3), first] = -100
    logits_BTV = reference(**batch, use_cache=False).logits[:, :-1]
    F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT[:, 1:].flatten()).backward()
    product = one.weight_OI * reference.lm_head.weight.grad
    torch.testing.assert_close(one.first_OI, product, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "opt"])
def test_the_head_sees_some_tokens_at_a_time(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits of all tokens are never there at once, and the numbers are the same."""
    model, batches = shared_model(model_type), split(padded("left"), 2)
    states = states_of(model, batches)
    with states.from_start():
        hidden = [torch.randn_like(states.entering(i)) for i in states.indices]
    whole = swept(model, batches), [states.losses(i, one) for i, one in enumerate(hidden)]
    seen: list[int] = []
    head = states.anatomy.head.module
    monkeypatch.setattr(tasks, "LOGITS", 64 * 2 * 3)  # three tokens of two sequences
    note = head.register_forward_hook(lambda _, __, output: seen.append(output[..., 0].numel()))
    parts = swept(model, batches), [states.losses(i, one) for i, one in enumerate(hidden)]
    note.remove()
    assert max(seen) == 6
    for name, one in whole[0].items():
        torch.testing.assert_close(parts[0][name].first_OI, one.first_OI, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-5, atol=1e-6)


def test_the_logits_of_a_large_vocabulary_take_little() -> None:
    """64 MiB at once at most, in fp32; a pass back holds them more than once."""
    model = tiny_model("llama", vocab_size=50_000, num_hidden_layers=1)
    states = states_of(model, [{"input_ids": torch.arange(2 * 200).view(2, 200)}])
    seen: list[int] = []
    head = states.anatomy.head.module
    with states.from_start():
        hidden = torch.randn_like(states.entering(0))
        note = head.register_forward_hook(lambda _, __, output: seen.append(output.nbytes))
        states.head_gradient(0, hidden, TaskLoss())
        note.remove()
    assert max(seen) <= 64 * 2**20


@pytest.mark.parametrize(
    ("model_type", "attention"), [("llama", "eager"), ("llama", "sdpa"), ("gemma3_text", "eager")]
)
def test_they_equal_autograds_with_either_attention(model_type: str, attention: str) -> None:
    """Masks handed over by the model (eager), or implied (sdpa)."""
    model, batch = tiny_model(model_type), padded("left")
    model.set_attn_implementation(attention)
    assert_gradients_equal(swept(model, split(batch, 2)), autograd(model, batch))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_frozen_weights_have_gradients_too(model_type: str) -> None:
    """Nothing needs to require gradients, and none are left in the parameters."""
    model, batch = tiny_model(model_type), padded("left")
    expected = autograd(model, batch)
    for frozen in (True, False):
        model.requires_grad_(not frozen)
        assert_gradients_equal(swept(model, [batch]), expected)
        for parameter in model.parameters():
            assert parameter.grad is None
            assert parameter.requires_grad is not frozen


def test_bfloat16_gradients_are_summed_in_higher_precision() -> None:
    """The type of the model does not limit the sum; the gradients agree within its rounding."""
    batch = padded("left")
    found = swept(tiny_model("llama", dtype=torch.bfloat16), split(batch, 1))
    exact = swept(tiny_model("llama"), [batch])
    for name, one in found.items():
        assert one.first_OI.dtype == torch.float32
        a, b = one.first_OI.flatten(), exact[name].first_OI.flatten()
        assert float(F.cosine_similarity(a, b, dim=0)) > 0.99


def test_gradients_do_not_vanish_in_float16() -> None:
    """A small gradient at each of many tokens; a thousandth of it would be 0 in float16."""
    batch = padded("none", batch=64)

    def model(dtype: torch.dtype) -> nn.Module:
        quiet = tiny_model("llama", dtype=dtype)
        with torch.no_grad():
            quiet.lm_head.weight.mul_(1e-3)
        return quiet

    found, exact = swept(model(torch.float16), [batch]), swept(model(torch.float32), [batch])
    for name, one in found.items():
        a, b = one.first_OI.flatten(), exact[name].first_OI.flatten()
        assert float(F.cosine_similarity(a, b, dim=0, eps=0)) > 0.99, name


def test_offloading_changes_nothing() -> None:
    """Where hidden states wait does not show in the gradients."""
    model, batches = tiny_model("llama"), split(padded("left"), 2)
    away, here = swept(model, batches, offload=True), swept(model, batches)
    for name in here:
        torch.testing.assert_close(away[name].first_OI, here[name].first_OI, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("whole", "blocks", "ran"),
    [
        (False, [0, 1, 2], [0, 1, 2, 2, 1, 0]),
        (False, [1], [0, 1, 2, 2, 1]),
        (False, [2], [0, 1, 2, 2]),
        (True, [1], [0, 1, 2]),
    ],
)
def test_it_goes_back_only_as_far_as_needed(whole: bool, blocks: list[int], ran: list[int]) -> None:
    """One pass forward, then backwards to the first block wanted."""
    model, batch = tiny_model("llama"), padded("none")
    expected = autograd(model, batch)
    with counting_blocks(model) as seen:
        states = states_of(model, [batch])
        wanted = [states.anatomy.blocks[i] for i in blocks]
        sweep = gradient_sweep(states, Gradients(), wanted, whole=whole)
        found = {block.index: dict(evidence) for block, evidence in sweep}
    assert list(found) == blocks[::-1]
    assert seen == ran
    for index, evidence in found.items():
        own = {n: g for n, g in expected.items() if n.startswith(f"model.layers.{index}.")}
        assert_gradients_equal(evidence, own)


@either_way
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_nothing_is_left_behind(model_type: str, whole: bool) -> None:
    """Not after the sweep, not when it is left early, not after an error in the middle."""
    model = shared_model(model_type)
    before = traces(model)
    everything = Feature(kind="frobenius", modules="all")
    swept(model, [padded("left")], objective=everything, whole=whole)
    assert traces(model) == before

    states = states_of(model, [padded("left")])
    sweep = gradient_sweep(states, Gradients(), states.anatomy.blocks, whole=whole)
    next(sweep)
    sweep.close()
    assert traces(model) == before

    states = states_of(model, [padded("left")])
    sweep = gradient_sweep(states, Gradients(), states.anatomy.blocks, whole=whole)
    if not whole:
        next(sweep)
    last = states.anatomy.blocks[1].sites[-1].module
    with breaking(last), pytest.raises(RuntimeError, match="broken layer"):
        next(sweep)
    assert traces(model) == before


@either_way
def test_one_blocks_evidence_at_a_time(whole: bool) -> None:
    """What was yielded is let go before the next block's begins, whoever still names it."""
    states = states_of(shared_model("llama"), [padded("none")])
    sweep = gradient_sweep(states, Gradients(), states.anatomy.blocks, whole=whole)
    _, first = next(sweep)
    assert len(first) == 7
    next(sweep)
    assert first == {}
    sweep.close()
