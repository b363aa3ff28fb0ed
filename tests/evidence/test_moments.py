"""Mean, variance and norm of inputs, and the fluctuation of FLAP's code, against slow loops."""

from __future__ import annotations

import statistics

import pytest
import torch

from lightning_prune.evidence import AliasedMoments, InputMoments
from tests.evidence.test_inputs import fed, inputs, some_padding


def features(input_BTI: torch.Tensor, keep_BT: torch.Tensor) -> list[list[float]]:
    """Of each feature, its values at all tokens that count."""
    return input_BTI[keep_BT].double().T.tolist()


def test_moments_equal_a_loop_over_the_tokens() -> None:
    """Mean, mean squared deviation, root of the sum of squares; in fp32."""
    input_BTI, keep_BT = inputs() + 2, some_padding()
    values = features(input_BTI, keep_BT)
    moments = fed(InputMoments, [(input_BTI, keep_BT)]).result()
    assert {part.dtype for part in moments} == {torch.float32}
    for name, expected in {
        "mean_I": [statistics.fmean(xs) for xs in values],
        "variance_I": [statistics.pvariance(xs) for xs in values],
        "norm_I": [sum(x * x for x in xs) ** 0.5 for xs in values],
    }.items():
        torch.testing.assert_close(getattr(moments, name), torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_large_feature_that_hardly_moves_keeps_its_variance(dtype: torch.dtype) -> None:
    """Its square is a million times its variance, and beyond what float16 holds."""
    steps = torch.tensor([1.0, -1.0, 0.0, 2.0] * 50) * (8 if dtype is torch.bfloat16 else 1)
    input_BTI = (1024 + steps).to(dtype).view(5, 40, 1)
    variance = float(fed(InputMoments, [(input_BTI, None)]).result().variance_I)
    assert variance == pytest.approx(statistics.pvariance(steps.tolist()), rel=1e-6)


def test_a_constant_feature_does_not_vary() -> None:
    """Nor is its variance below 0 by rounding."""
    input_BTI = torch.full((3, 7, 1), 0.1)
    variance_I = fed(InputMoments, [(input_BTI, None)] * 5).result().variance_I
    assert 0 <= float(variance_I) < 1e-15


@pytest.mark.parametrize("size", [1, 4, 6])
def test_the_aliased_fluctuation_equals_its_formula(size: int) -> None:
    """1/(N-1) Σ_{k≥2} (k-1)/k Σ_t (x_t - m_k)², m_k the mean after k sequences; in any batches."""
    input_BTI, keep_BT = inputs() + 2, some_padding()
    expected = []
    for j in range(input_BTI.shape[-1]):
        total, seen = 0.0, []
        for k, (sequence, keep) in enumerate(zip(input_BTI[..., j], keep_BT, strict=True), 1):
            now = sequence[keep].double().tolist()
            seen += now
            mean = statistics.fmean(seen)
            total += (k - 1) / k * sum((x - mean) ** 2 for x in now)
        expected.append(total / 5)
    parts = zip(input_BTI.split(size), keep_BT.split(size), strict=True)
    moments = fed(AliasedMoments, parts).result()
    torch.testing.assert_close(moments.variance_I, torch.tensor(expected))
    plain = fed(InputMoments, [(input_BTI, keep_BT)]).result()
    torch.testing.assert_close(moments.mean_I, plain.mean_I)
    torch.testing.assert_close(moments.norm_I, plain.norm_I)


def test_sequences_of_padding_alone_do_not_count() -> None:
    """Neither as tokens nor as sequences."""
    input_BTI, keep_BT = inputs(), some_padding()
    empty_BT = torch.zeros(2, 9, dtype=torch.bool)
    for kind in (InputMoments, AliasedMoments):
        alone = fed(kind, [(input_BTI, keep_BT)]).result()
        batches = [(input_BTI[:2], empty_BT), (input_BTI, keep_BT), (input_BTI[:2], empty_BT)]
        for found, expected in zip(fed(kind, batches).result(), alone, strict=True):
            torch.testing.assert_close(found, expected)
