"""What a token counts by: against loops over tokens; where it lies in a batch does not matter."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from lightning_prune.evidence import CrossGram, Gram, InputEvidence, InputNorm, TokenWeight
from lightning_prune.evidence.token_weight import CLIP

from .test_inputs import CPU, inputs, some_padding

WEIGHTS: list[TokenWeight] = ["square", "clipped", "equal"]


def with_a_long_token() -> torch.Tensor:
    """The first that counts of every window is a hundred times as long as the others."""
    input_BTI = inputs()
    for window, keep in zip(input_BTI, some_padding(), strict=True):
        window[int(keep.int().argmax())] *= 100
    return input_BTI


def factors(input_BTI: torch.Tensor, keep_BT: torch.Tensor, weight: TokenWeight) -> torch.Tensor:
    """Token by token; 0 where one does not count."""
    factor_BT = torch.zeros(keep_BT.shape)
    for b, (window, keep) in enumerate(zip(input_BTI.tolist(), keep_BT.tolist(), strict=True)):
        lengths = [math.sqrt(sum(value**2 for value in token)) for token in window]
        counted = sorted(x for x, counts in zip(lengths, keep, strict=True) if counts)
        most = CLIP * statistics.median_low(counted)
        for t, length in enumerate(lengths):
            by = {"square": 1.0, "clipped": min(1.0, most / length), "equal": 1 / length}
            factor_BT[b, t] = by[weight] * keep[t]
    return factor_BT


@pytest.mark.parametrize("weight", WEIGHTS)
def test_norms_and_products_are_those_of_tokens_times_their_factors(weight: TokenWeight) -> None:
    """Of the input, of the dense model's input and of the stream's error alike."""
    input_BTI, keep_BT = with_a_long_token(), some_padding()
    dense_BTI, error_BTD = inputs(seed=1), inputs(width=7, seed=2)
    factor_BT1 = factors(input_BTI, keep_BT, weight)[..., None]
    parts = [
        (value * factor_BT1).flatten(0, 1).double() for value in (input_BTI, dense_BTI, error_BTD)
    ]
    input_NI, dense_NI, error_ND = parts
    tokens = int(keep_BT.sum())

    norm = InputNorm(token_weight=weight).begin(13, CPU)
    norm.update(input_BTI, keep_BT)
    torch.testing.assert_close(norm.result(), input_NI.norm(dim=0).float())

    pair = CrossGram(token_weight=weight).begin(13, CPU, adds=7)
    pair.update_pair(input_BTI, dense_BTI, error_BTD, keep_BT)
    assert pair.confidence < 1  # what stands beside the diagonal is believed as far as this
    pair.rows_per_feature = 0  # type: ignore[misc]
    result = pair.result()
    for product, left in (
        (result.gram_II, input_NI),
        (result.cross_II, dense_NI),
        (result.error_DI, error_ND),
    ):
        torch.testing.assert_close(product, (left.mT @ input_NI / tokens).float())


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("kind", [InputNorm, Gram])
def test_batches_do_not_matter(kind: type[InputEvidence], weight: TokenWeight) -> None:
    """Six windows at once are six windows one by one."""
    input_BTI, keep_BT = with_a_long_token(), some_padding()
    at_once = kind(token_weight=weight).begin(13, CPU)
    at_once.update(input_BTI, keep_BT)
    one_by_one = kind(token_weight=weight).begin(13, CPU)
    for b in range(6):
        one_by_one.update(input_BTI[b : b + 1], keep_BT[b : b + 1])
    torch.testing.assert_close(at_once.result(), one_by_one.result())


@pytest.mark.parametrize("weight", ["clipped", "equal"])
def test_one_long_token_does_not_rule(weight: TokenWeight) -> None:
    """With the squares, the norms are its own; else they are hardly changed by it."""
    quiet_BTI = inputs(batch=1, tokens=64)
    loud_BTI = quiet_BTI.clone()
    loud_BTI[0, 0] = torch.linspace(0, 1000, 13)
    norms = {}
    for by in ("square", weight):
        for name, value in (("quiet", quiet_BTI), ("loud", loud_BTI)):
            one = InputNorm(token_weight=by).begin(13, CPU)  # type: ignore[arg-type]
            one.update(value, None)
            norms[by, name] = one.result() / one.result().norm()
    assert (norms["square", "loud"] - norms["square", "quiet"]).norm() > 0.5
    assert (norms[weight, "loud"] - norms[weight, "quiet"]).norm() < 0.1


@pytest.mark.parametrize("weight", WEIGHTS)
def test_tokens_of_zeros(weight: TokenWeight) -> None:
    """They count for nothing, and divide nothing by zero."""
    one = Gram(token_weight=weight).begin(5, CPU)
    one.update(torch.zeros(2, 3, 5), None)
    torch.testing.assert_close(one.result(), torch.zeros(5, 5))
