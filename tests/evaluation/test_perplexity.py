"""Perplexity block by block is that of the model's own forward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_prune.evaluation import perplexity, tokens_per_second
from tests.sweep.helpers import padded, shared_model, split, traces
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model


@torch.no_grad()
def slow_perplexity(model: nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Sequence by sequence, token by token, on the tokens alone."""
    losses = []
    for one in split(batch, 1):
        logits_TV = model(**one, use_cache=False).logits[0].double()
        ids_T = one["input_ids"][0]
        counts_T = one.get("attention_mask", torch.ones_like(one["input_ids"]))[0]
        for t in range(1, len(ids_T)):
            if counts_T[t - 1] and counts_T[t]:
                losses.append(-float(logits_TV[t - 1].log_softmax(0)[ids_T[t]]))
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_it_equals_a_loop_over_the_tokens(model_type: str, side: str) -> None:
    """For every family, with and without padding."""
    model, batch = shared_model(model_type), padded(side)
    expected = slow_perplexity(model, batch)
    assert perplexity(model, [batch]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_it_does_not_depend_on_the_batch_size(side: str) -> None:
    """Every token weighs the same, however windows are batched."""
    model, batch = shared_model("llama"), padded(side)
    whole = perplexity(model, [batch])
    for size in (1, 2):
        assert perplexity(model, split(batch, size)) == pytest.approx(whole, rel=1e-5)


def test_it_does_not_depend_on_the_amount_of_padding() -> None:
    """More padding behind the same tokens changes nothing."""
    model, batch = shared_model("llama"), padded("right")
    wider = {
        "input_ids": nn.functional.pad(batch["input_ids"], (0, 5)),
        "attention_mask": nn.functional.pad(batch["attention_mask"], (0, 5)),
    }
    assert perplexity(model, [wider]) == pytest.approx(perplexity(model, [batch]), rel=1e-5)


def test_left_and_right_padding_give_the_same() -> None:
    """The first token of a sequence is not predicted from the padding in front of it."""
    model, left = shared_model("llama"), padded("left")
    order = left["attention_mask"].argsort(dim=1, descending=True, stable=True)
    right = {name: tensor.gather(1, order) for name, tensor in left.items()}
    assert perplexity(model, [left]) == pytest.approx(perplexity(model, [right]), rel=1e-5)


def test_labels_say_which_tokens_count() -> None:
    """With all labels but the last ignored, it is that token's own."""
    model, ids_BT = shared_model("llama"), tiny_batch(1, 12)
    labels_BT = torch.full_like(ids_BT, -100)
    labels_BT[:, -1] = ids_BT[:, -1]
    with torch.no_grad():
        chance = model(ids_BT).logits[0, -2].softmax(0)[ids_BT[0, -1]]
    found = perplexity(model, [{"input_ids": ids_BT, "labels": labels_BT}])
    assert found == pytest.approx(1 / float(chance), rel=1e-4)


def test_a_hopeless_model_has_infinite_perplexity() -> None:
    """Losses too large for exp are no error."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)
    assert perplexity(model, [padded("none")]) == math.inf


@pytest.mark.parametrize("batches", [[], [padded("none", tokens=1)]])
def test_nothing_to_predict_is_refused(batches: list[dict[str, torch.Tensor]]) -> None:
    """Not 1, not NaN."""
    with pytest.raises(ValueError, match="no token to predict"):
        perplexity(shared_model("llama"), batches)


def test_the_model_is_left_as_it_was() -> None:
    """Training mode, hooks and forwards."""
    model = tiny_model("opt", dropout=0.5).train()
    before = traces(model)
    found = perplexity(model, [padded("left")])
    assert found == perplexity(model.eval(), [padded("left")])  # without dropout
    model.train()
    tokens_per_second(model, padded("left"), torch.device("cpu"))
    assert traces(model) == before


def test_speed_is_a_positive_number_of_tokens_per_second() -> None:
    """Measured on the whole batch."""
    assert tokens_per_second(shared_model("llama"), padded("none"), torch.device("cpu")) > 0


@pytest.mark.parametrize(("seconds", "runs"), [(0.1, 18), (4.0, 4), (60.0, 2)])
def test_a_slow_model_is_timed_less_often(
    seconds: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that looking at a model takes seconds; the first run, which warms up, never counts."""
    begun: list[object] = []

    def timed(work: object, device: torch.device) -> tuple[None, float]:
        begun.append(work)
        return None, seconds / 2 if len(begun) == 1 else seconds

    monkeypatch.setattr("lightning_prune.evaluation.speed._timed", timed)
    batch = {"input_ids": torch.zeros(2, 30, dtype=torch.long)}
    assert tokens_per_second(tiny_model("llama"), batch, torch.device("cpu")) == 60 / seconds
    assert len(begun) == runs
