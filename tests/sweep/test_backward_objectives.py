"""Of what gradients are taken, and which tokens count in it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Feature, Gradients, TaskLoss
from lightning_prune.sweep.backward import gradient_sweep
from tests.sweep.gradients import Batch, assert_gradients_equal, autograd, site_gradients, swept
from tests.sweep.helpers import padded, shared_model, split, states_of, tokens_of
from tests.tiny import MODEL_TYPES, tiny_model


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


def test_nothing_to_predict_is_refused() -> None:
    """Windows of one token, and padding only, have no loss."""
    for batch in (
        padded("none", tokens=1),
        {"input_ids": padded("none")["input_ids"], "attention_mask": torch.zeros(3, 14)},
    ):
        states = states_of(tiny_model("llama"), [batch])
        with pytest.raises(ValueError, match=r"ask for no token.*at least two tokens in a row"):
            next(gradient_sweep(states, Gradients(), states.anatomy.blocks[:1]))
