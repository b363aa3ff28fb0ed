"""Training what pruning left of the blocks: what it does, and what it leaves alone."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import (
    CFSP,
    BlockFit,
    CausalLM,
    DropBlocks,
    Magnitude,
    SparseGPT,
    TextData,
    Wanda,
    prune,
)
from lightning_prune.evaluation import perplexity
from lightning_prune.repair.block_fit import relative_error
from tests.copies import Template
from tests.tiny import tiny_batch, tiny_model

Batches = list[dict[str, torch.Tensor]]


def batches(total: int = 4, size: int = 2) -> Batches:
    return [{"input_ids": part} for part in tiny_batch(total, 12).split(size)]


def hidden_states(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """In front of every block; of the last, behind the final norm."""
    with torch.no_grad():
        states: tuple[torch.Tensor, ...] = model(**batch, output_hidden_states=True).hidden_states
    return states


def test_the_error_of_a_token_is_relative_to_its_own_length() -> None:
    """Token by token, and padding does not count."""
    generator = torch.Generator().manual_seed(0)
    output_BTD, target_BTD = torch.randn(2, 2, 3, 5, generator=generator)
    target_BTD[0, 0] *= 1000
    keep_BT = torch.tensor([[True, True, False], [True, False, True]])
    expected = 0.0
    for b, t in keep_BT.nonzero().tolist():
        wrong = sum((output_BTD[b, t] - target_BTD[b, t]).tolist()[d] ** 2 for d in range(5))
        expected += wrong / sum(value**2 for value in target_BTD[b, t].tolist())
    output_BTD[0, 2] = math.nan
    error = relative_error(output_BTD, target_BTD, keep_BT)
    torch.testing.assert_close(error, torch.tensor(expected))


@pytest.mark.parametrize("target", ["stream", "block"])
def test_a_first_step_is_a_hundredth_of_each_tensor_against_the_gradient(target: Any) -> None:
    """Of the loss as written down here, in the first block, where Adam's step is a sign."""
    dense, model = tiny_model("llama"), tiny_model("llama")
    batch = batches(2)[0]
    method = Magnitude(sparsity=0.5, block_fit=BlockFit(steps=1, target=target, held_out=0))
    plan = prune(model, method, [batch])

    expected = tiny_model("llama")
    prune(expected, Magnitude(sparsity=0.5), None)
    wanted = hidden_states(dense, batch)[1]
    found = expected(**batch, output_hidden_states=True).hidden_states[1]
    error_BT = (found - wanted).square().sum(-1) / wanted.square().sum(-1)
    error_BT.mean().backward()
    name = "model.layers.0.mlp.up_proj.weight"
    weight_OI, trained_OI = expected.get_parameter(name), model.get_parameter(name)
    assert weight_OI.grad is not None
    keep_OI = plan.mask(name)
    step = 0.01 * weight_OI.detach()[keep_OI].square().mean().sqrt()
    moved_OI = weight_OI - step * weight_OI.grad.sign() * keep_OI
    torch.testing.assert_close(trained_OI, moved_OI, rtol=0, atol=0.05 * float(step))
    assert plan.provenance["block_fit"][0]["steps"] == 1


def test_a_first_step_towards_the_logits_is_one_against_the_divergence() -> None:
    """Of the dense model's next tokens, in every block; what is padding is not asked for."""
    dense, model, expected = (tiny_model("llama") for _ in range(3))
    batch = batches(2)[0] | {"attention_mask": torch.ones(2, 12, dtype=torch.long)}
    batch["attention_mask"][0, 8:] = 0
    fit = BlockFit(steps=1, target="logits", rate=0.01, held_out=0)
    plan = prune(model, Magnitude(sparsity=0.5, block_fit=fit), [batch])

    prune(expected, Magnitude(sparsity=0.5), None)
    with torch.no_grad():
        wanted = dense(**batch).logits.log_softmax(-1)
    ours = expected(**batch).logits.log_softmax(-1)
    divergence_BT = (wanted.exp() * (wanted - ours)).sum(-1)
    asked = [(0, t) for t in range(7)] + [(1, t) for t in range(11)]
    loss = torch.stack([divergence_BT[b, t] for b, t in asked]).mean()
    loss.backward()
    note = plan.provenance["block_fit"][0]
    assert note["blocks"] == [0, 1, 2]
    assert note["before"] == pytest.approx(loss.item(), rel=1e-5)
    for block in range(3):
        name = f"model.layers.{block}.mlp.up_proj.weight"
        weight_OI, trained_OI = expected.get_parameter(name), model.get_parameter(name)
        assert weight_OI.grad is not None
        keep_OI = plan.mask(name) & (weight_OI.grad.abs() > 1e-6)  # of less Adam makes no sign
        step = 0.01 * weight_OI.detach()[plan.mask(name)].square().mean().sqrt()
        moved_OI = weight_OI - step * weight_OI.grad.sign()
        torch.testing.assert_close(
            trained_OI[keep_OI], moved_OI[keep_OI], rtol=0, atol=0.05 * float(step)
        )
        assert not trained_OI[~plan.mask(name)].any()


@pytest.mark.parametrize("target", ["stream", "logits"])
@pytest.mark.parametrize("empty", [0, 3])
def test_batches_of_padding_are_passed_over(empty: int, target: Any) -> None:
    """Whether they would be learnt from, or judged by."""
    every = [batch | {"attention_mask": torch.ones(1, 12, dtype=torch.long)}
             for batch in batches(4, 1)]  # fmt: skip
    every[empty]["attention_mask"][:] = 0
    fit = BlockFit(steps=4, target=target, rate=1e-3)
    plan = prune(tiny_model("llama"), Magnitude(sparsity=0.5, block_fit=fit), every)
    alone = prune(
        tiny_model("llama"),
        Magnitude(sparsity=0.5, block_fit=fit),
        [batch for i, batch in enumerate(every) if i != empty],
    )
    assert plan.provenance["block_fit"] == alone.provenance["block_fit"]


def test_blocks_behind_those_that_are_trained_are_run_through() -> None:
    """Towards the logits, when the last blocks are not pruned: they stay, and have no gradients."""
    model, before = tiny_model("llama"), tiny_model("llama")
    fit = BlockFit(steps=8, target="logits", rate=1e-3, held_out=0)
    plan = prune(model, Wanda(sparsity=0.5, layer_start=1, layer_end=2, block_fit=fit), batches())
    note = plan.provenance["block_fit"][0]
    assert note["blocks"] == [1]
    assert note["after"] < note["before"]
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert ".1." in name or torch.equal(parameter, before.get_parameter(name))


@pytest.mark.parametrize(
    ("fit", "steps"), [(BlockFit(steps=5), 15), (BlockFit(steps=5, target="logits"), 5)]
)
def test_how_far_it_is_is_counted_in_steps(
    fit: BlockFit, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A span may take minutes, and all blocks are one towards the logits."""
    prune(tiny_model("llama"), Magnitude(sparsity=0.5, block_fit=fit), batches())
    assert f"BlockFit: {steps}/{steps} steps in" in capsys.readouterr().err


def test_nothing_ends_worse_than_it_began() -> None:
    """Steps that are far too long are not kept: weights are what they were, bit for bit."""
    model, alone = tiny_model("llama"), tiny_model("llama")
    plan = prune(model, Wanda(sparsity=0.5, block_fit=BlockFit(rate=1e4)), batches())
    prune(alone, Wanda(sparsity=0.5), batches())
    assert [note["steps"] for note in plan.provenance["block_fit"]] == [0, 0, 0]
    for (name, value), (_, expected) in zip(
        model.named_parameters(), alone.named_parameters(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_and_types_stay(dtype: torch.dtype) -> None:
    """Where the mask is, and nowhere else; outside the blocks nothing changes."""
    model, before = tiny_model("llama").to(dtype), tiny_model("llama").to(dtype)
    plan = prune(model, SparseGPT(sparsity=0.5, block_fit=BlockFit(steps=8)), batches())
    for name in plan.mask_names:
        weight_OI = model.get_parameter(name)
        assert weight_OI.dtype == dtype
        assert not weight_OI[~plan.mask(name)].any(), name
    assert any(note["steps"] for note in plan.provenance["block_fit"])
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is None
        if ".layers." not in name:
            torch.testing.assert_close(parameter, before.get_parameter(name), rtol=0, atol=0)


def test_only_the_blocks_that_are_pruned_are_trained() -> None:
    """Those in front are run through, and those behind are left alone."""
    model, before = tiny_model("llama"), tiny_model("llama")
    method = Wanda(sparsity=0.5, layer_start=1, layer_end=2, block_fit=BlockFit(steps=8))
    plan = prune(model, method, batches())
    assert [note["blocks"] for note in plan.provenance["block_fit"]] == [[1]]
    changed = {
        name.split(".")[2]
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before.get_parameter(name))
    }
    assert changed == {"1"}


def test_a_plan_brings_what_was_trained(tmp_path: Any) -> None:
    """Norms too, where weights were masked and where units were cut."""
    for method in (
        Wanda(sparsity=0.5, block_fit=BlockFit(steps=8)),
        CFSP(ratio=0.3, block_fit=BlockFit(steps=8)),
    ):
        model = tiny_model("llama")
        plan = prune(model, method, batches())
        plan.save(tmp_path, model)
        again = tiny_model("llama")
        prune(again, type(method)(plan=tmp_path))
        batch = batches()[0]
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits)


_QUICKSTART: dict[str, Template] = {}


def quickstart() -> tuple[nn.Module, Batches, Batches]:
    if not _QUICKSTART:
        module = CausalLM("quickstart", dtype="float32")
        module.load()
        data = TextData("builtin", nsamples=16, length=128, batch_size=4)
        data.attach(module.tokenizer, module.max_position_embeddings)
        texts = list(data.calibration_dataloader()), list(data.val_dataloader())[:4]
        _QUICKSTART["it"] = Template((module.base, *texts))
    model, calibration, validation = _QUICKSTART["it"].copy()
    return model, calibration, validation


@pytest.mark.parametrize(
    ("cls", "settings"), [(Wanda, {"pattern": "2:4"}), (CFSP, {"ratio": 0.3, "repair": None})]
)
@pytest.mark.parametrize("fit", [BlockFit(), BlockFit(target="logits", rate=0.005)])
def test_it_pays_on_a_model_that_was_trained(
    cls: Any, settings: dict[str, Any], fit: BlockFit
) -> None:
    """Perplexity on other text rises less than half as much."""
    model, calibration, validation = quickstart()
    dense = perplexity(model, validation)
    prune(model, cls(**settings), calibration)
    alone = perplexity(model, validation)
    model, calibration, validation = quickstart()
    prune(model, cls(**settings, block_fit=fit), calibration)
    assert perplexity(model, validation) - dense < 0.5 * (alone - dense)


def test_worse_for_a_while_is_no_reason_to_stop() -> None:
    """Steps that are too long at first become shorter: what all of them came to may be better."""
    model, calibration, _ = quickstart()
    fit = BlockFit(steps=32, rate=0.1)
    plan = prune(model, SparseGPT(sparsity=0.5, block_fit=fit), calibration)
    assert 32 in [note["steps"] for note in plan.provenance["block_fit"]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BlockFit(steps=0), "steps=0"),
        (lambda: BlockFit(span=0.5), "span=0.5"),  # type: ignore[arg-type]
        (lambda: BlockFit(rate=0), "rate=0"),
        (lambda: BlockFit(held_out=1), "held_out=1"),
        (lambda: BlockFit(span=2, target="logits"), 'logits" trains all blocks together'),
        (
            lambda: Wanda(sparsity=0.5, embeddings=True, block_fit=BlockFit()),
            "blocks are fitted from the dense ones",
        ),
        (
            lambda: Wanda(sparsity=0.5, head=True, block_fit=BlockFit(target="logits")),
            'target="logits" is what the dense head says',
        ),
        (lambda: DropBlocks(count=1, block_fit=BlockFit()), "what is dropped has no fit"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, said: str) -> None:
    """When it is made."""
    with pytest.raises(ValueError, match=re.escape(said)):
        make()
