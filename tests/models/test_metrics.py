"""Perplexity: against a slow loop, other batchings, padding, and the stock metric."""

from __future__ import annotations

import math

import pytest
import torch
import torchmetrics.text
from safetensors.torch import load_file

from lightning_prune.evaluation.metrics import Perplexity
from lightning_prune.models import CausalLM
from tests.shared import shared_path


def random_batch(batch: int = 5, tokens: int = 7, vocabulary: int = 11):
    generator = torch.Generator().manual_seed(0)
    logits_BTV = torch.randn(batch, tokens, vocabulary, generator=generator) * 3
    labels_BT = torch.randint(vocabulary, (batch, tokens), generator=generator)
    labels_BT[torch.rand(batch, tokens, generator=generator) < 0.3] = -100
    return logits_BTV, labels_BT


def perplexity(*batches) -> float:
    metric = Perplexity()
    for logits_BTV, labels_BT in batches:
        metric.update(logits_BTV, labels_BT)
    return float(metric.compute())


def test_it_equals_a_loop_over_the_tokens():
    """exp of the mean of -log p(token | tokens before it), over the tokens that count."""
    logits_BTV, labels_BT = random_batch()
    losses = []
    for logits_TV, labels_T in zip(logits_BTV.double(), labels_BT, strict=True):
        for t in range(1, len(labels_T)):
            if labels_T[t] != -100:
                row_V = logits_TV[t - 1]
                losses.append(float(torch.logsumexp(row_V, 0) - row_V[labels_T[t]]))
    assert perplexity((logits_BTV, labels_BT)) == pytest.approx(
        math.exp(sum(losses) / len(losses)), rel=1e-6
    )


def test_it_weighs_tokens_and_not_batches():
    """Windows with different numbers of tokens, in one batch or in five: one number."""
    logits_BTV, labels_BT = random_batch()
    alone = list(zip(logits_BTV[:, None], labels_BT[:, None], strict=True))
    assert perplexity(*alone) == pytest.approx(perplexity((logits_BTV, labels_BT)), rel=1e-6)


def test_one_token_of_no_probability_makes_the_stock_metric_infinite_and_not_this_one():
    """Why torchmetrics' own is not used: its softmax rounds to 0 before its logarithm."""
    logits_BTV = torch.zeros(1, 1001, 4)
    labels_BT = torch.zeros(1, 1001, dtype=torch.long)
    logits_BTV[0, 7, 3] = 200.0
    stock = torchmetrics.text.Perplexity()
    stock.update(logits_BTV[:, :-1], labels_BT[:, 1:])
    assert math.isinf(stock.compute())
    expected = math.exp((999 * math.log(4) + 200) / 1000)
    assert perplexity((logits_BTV, labels_BT)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 5, 32])
def test_a_trained_model_has_its_known_perplexity_at_any_batch_size(batch):
    """Against the figure that independent implementations give for these windows."""
    module = CausalLM(str(shared_path("models/stories260k")))
    module.load()
    windows_NT = load_file(shared_path("golden/evaluation.safetensors"))["input_ids"].long()
    with torch.no_grad():
        batches = [(module({"input_ids": ids}), ids) for ids in windows_NT.split(batch)]
    assert perplexity(*batches) == pytest.approx(4.287970, rel=1e-5)


def test_a_cast_of_the_module_does_not_lower_the_precision() -> None:
    """Lightning's bf16-true casts the metric with the module that holds it."""
    metric = Perplexity().to(torch.bfloat16)
    torch.nn.ModuleList([metric]).to(torch.bfloat16)
    assert metric.nll.dtype == torch.float64
    metric.reset()
    assert metric.nll.dtype == torch.float64
