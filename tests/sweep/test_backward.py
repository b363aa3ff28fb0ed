"""The gradient sweep gives the gradients that autograd gives for the whole model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.anatomy import Anatomy, tasks
from lightning_prune.evidence import Feature, Gradients, Objective, TaskLoss
from lightning_prune.sweep import memory
from lightning_prune.sweep.backward import gradient_sweep
from tests.sweep.helpers import (
    breaking,
    counting_blocks,
    padded,
    shared_model,
    split,
    states_of,
    tokens_of,
    traces,
)
from tests.tiny import MODEL_TYPES, tiny_model

Batch = dict[str, torch.Tensor]


def autograd(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss over all tokens that are predicted, by plain autograd."""
    model = copy.deepcopy(model).requires_grad_()
    labels_BT = batch.get("labels", batch["input_ids"])
    kept_BT = tokens_of(batch)
    kept_BT[:, 1:] &= kept_BT[:, :-1].clone()
    labels_BT = labels_BT.masked_fill(~kept_BT, -100)
    inputs = {name: batch[name] for name in batch if name != "labels"}
    logits_BTV = model(**inputs, use_cache=False).logits
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten()).backward()
    return site_gradients(model)


def site_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        site.weight_name: site.module.weight.grad
        for block in Anatomy(model).blocks
        for site in block.sites
    }


def swept(
    model: nn.Module,
    batches: list[Batch],
    squares: bool = False,
    offload: bool = False,
    whole: bool | None = None,
    objective: Objective | None = None,
    head: bool = False,
) -> dict[str, Gradients]:
    states = states_of(model, batches, offload)
    found: dict[str, Gradients] = {}
    wanted = Gradients(objective=objective or TaskLoss(), squares=squares)
    blocks = states.anatomy.blocks + ([states.anatomy.head] if head else [])
    for _, evidence in gradient_sweep(states, wanted, blocks, whole=whole):
        found |= evidence
    return found


def assert_gradients_equal(found: dict[str, Gradients], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, one in found.items():
        product_OI = one.weight_OI.double() * expected[name].double()
        torch.testing.assert_close(
            one.first_OI.double(), product_OI, rtol=1e-3, atol=1e-5 * float(product_OI.abs().max())
        )


either_way = pytest.mark.parametrize("whole", [True, False], ids=["whole", "by block"])


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
    monkeypatch.setattr(memory, "_free", lambda _: free)
    with counting_blocks(model := tiny_model("llama")) as seen:
        swept(model, split(padded("none"), 1), offload=offload)
    assert len(seen) - (not offload) == passes * 3 * 3


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


def last_token_gradients(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Of the logits at the last token of each sequence against that token itself."""
    model = copy.deepcopy(model).requires_grad_()
    logits_BTV = model(**batch, use_cache=False).logits
    last_B = [int(row.nonzero().max()) for row in tokens_of(batch)]
    losses = [
        F.cross_entropy(logits_BTV[b, t], batch["input_ids"][b, t]) for b, t in enumerate(last_B)
    ]
    torch.stack(losses).mean().backward()
    return site_gradients(model)


@pytest.mark.parametrize(("side", "size"), [("none", 1), ("left", 3), ("right", 2)])
def test_reference_labels_are_the_last_token_unshifted(side: str, size: int) -> None:
    """One term a sequence, at its last token, wherever the padding is."""
    model, batch = shared_model("llama"), padded(side)
    found = swept(model, split(batch, size), objective=TaskLoss(labels="reference"))
    assert_gradients_equal(found, last_token_gradients(model, batch))


def feature_gradients(model: nn.Module, batch: Batch, kind: str, every: bool) -> Any:
    """By plain autograd, through the singular values themselves, sequence by sequence."""
    model, total = copy.deepcopy(model).requires_grad_(), torch.zeros(())
    seen: list[torch.Tensor] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if module is model:
            return
        output = output if isinstance(output, torch.Tensor) else output[0]
        if output.requires_grad:
            seen.append(output)

    linears = [site.module for block in Anatomy(model).blocks for site in block.sites]
    for module in model.modules() if every else linears:
        module.register_forward_hook(note)
    keep_BT = tokens_of(batch)
    model.get_input_embeddings().requires_grad_(False)
    model(**batch, use_cache=False)
    for output in seen:
        for one, keep_T in zip(output.view(*keep_BT.shape, -1), keep_BT, strict=True):
            one_TK = one[keep_T]
            if kind == "l1":
                total = total + one_TK.abs().sum()
            elif kind == "frobenius":
                total = total + one_TK.norm()
            else:
                total = total + torch.linalg.svdvals(one_TK).mean()
    (total / len(keep_BT)).backward()
    return site_gradients(model)


@pytest.mark.parametrize(("side", "size"), [("none", 1), ("left", 3), ("right", 2)])
@pytest.mark.parametrize(
    ("model_type", "kind", "modules"),
    [
        *((m, k, "linear") for m in ("llama", "opt") for k in ("nuclear", "frobenius", "l1")),
        ("llama", "frobenius", "all"),
    ],
)
def test_feature_gradients_equal_autograds(
    model_type: str, kind: Any, modules: Any, side: str, size: int
) -> None:
    """Of the norms of all features of each sequence alone, without its padding."""
    model, batch = shared_model(model_type), padded(side)
    found = swept(model, split(batch, size), objective=Feature(kind=kind, modules=modules))
    assert_gradients_equal(found, feature_gradients(model, batch, kind, modules == "all"))


@pytest.mark.parametrize(
    ("model_type", "attention"), [("llama", "eager"), ("llama", "sdpa"), ("gemma3_text", "eager")]
)
def test_they_equal_autograds_with_either_attention(model_type: str, attention: str) -> None:
    """Masks handed over by the model (eager), or implied (sdpa)."""
    model, batch = tiny_model(model_type), padded("left")
    model.set_attn_implementation(attention)
    assert_gradients_equal(swept(model, split(batch, 2)), autograd(model, batch))


def test_labels_say_which_tokens_count() -> None:
    """Tokens labelled -100 are read and not predicted."""
    model, batch = tiny_model("llama"), padded("right")
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, :7] = -100
    assert_gradients_equal(swept(model, split(batch, 1)), autograd(model, batch))


def test_every_token_weighs_the_same() -> None:
    """A short sequence does not weigh as much as a long one, however they are batched."""
    model, batch = tiny_model("llama"), padded("right")
    one, all_at_once = swept(model, split(batch, 1)), swept(model, [batch])
    for name in one:
        torch.testing.assert_close(
            one[name].first_OI, all_at_once[name].first_OI, rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_squares_are_those_of_each_sequence(model_type: str, size: int) -> None:
    """The mean over sequences of the squared gradient of each one's own mean loss."""
    model, batch = shared_model(model_type), padded("left")
    singles = [autograd(model, one) for one in split(batch, 1)]
    found = swept(model, split(batch, size), squares=True)
    assert_gradients_equal(found, autograd(model, batch))
    for name, one in found.items():
        expected_OI = torch.stack([single[name].square() for single in singles]).mean(dim=0)
        limit = 1e-5 * float(expected_OI.max())
        torch.testing.assert_close(one.square_OI, expected_OI, rtol=2e-3, atol=limit)


def test_a_sequence_without_a_prediction_does_not_count() -> None:
    """Neither in the gradient nor in the mean of the squares."""
    model, batch = tiny_model("llama"), padded("none", batch=2)
    padding = torch.zeros(1, 14, dtype=torch.long)
    longer = {
        "input_ids": torch.cat([batch["input_ids"], padding]),
        "attention_mask": torch.cat([torch.ones(2, 14, dtype=torch.long), padding]),
    }
    plain, more = swept(model, [batch], squares=True), swept(model, [longer], squares=True)
    for name in plain:
        torch.testing.assert_close(more[name].first_OI, plain[name].first_OI, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(
            more[name].square_OI, plain[name].square_OI, rtol=1e-3, atol=1e-6
        )


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


def test_nothing_to_predict_is_refused() -> None:
    """Windows of one token, and padding only, have no loss."""
    for batch in (
        padded("none", tokens=1),
        {"input_ids": padded("none")["input_ids"], "attention_mask": torch.zeros(3, 14)},
    ):
        states = states_of(tiny_model("llama"), [batch])
        with pytest.raises(ValueError, match=r"ask for no token.*at least two tokens in a row"):
            next(gradient_sweep(states, Gradients(), states.anatomy.blocks[:1]))


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
