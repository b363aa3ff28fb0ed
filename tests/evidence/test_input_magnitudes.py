"""How many numbers of an input have each magnitude."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_prune.evidence.input_magnitudes import InputMagnitudes, Magnitudes


def heard(*batches: torch.Tensor, keep: torch.Tensor | None = None) -> Magnitudes:
    accumulator = InputMagnitudes().begin(batches[0].shape[-1], torch.device("cpu"))
    for batch in batches:
        accumulator.update(batch, keep)
    return accumulator.result()


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_quantiles_are_those_of_the_sorted_numbers(fraction: float, dtype: torch.dtype) -> None:
    """To a thousandth; at least the fraction is not above them, and it is counted exactly."""
    input_BTI = noise(3, 5, 40, dtype=dtype)
    found = heard(input_BTI)
    size_N = input_BTI.float().abs().flatten()
    threshold = found.quantile(fraction)
    exact = np.quantile(size_N.numpy(), fraction, method="inverted_cdf")
    assert threshold == pytest.approx(float(exact), rel=2**-10)
    assert found.share(threshold) == float((size_N <= threshold).double().mean())
    assert found.share(threshold) >= fraction


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_of_sixteen_bits_are_told_apart(dtype: torch.dtype) -> None:
    """Each has a bin of its own."""
    value = torch.tensor([1.0, 0.5, 2.0**-14, 100.0], dtype=dtype)
    near = torch.nextafter(value.float(), value.float() * 2).to(dtype)
    next_up = (value.view(torch.int16) + 1).view(dtype)
    found = heard(torch.cat([value, next_up, -next_up])[None, None])
    assert torch.equal(near, value)
    assert found.count_N.tolist() == [1, 2] * 4


def test_batches_and_padding_do_not_matter() -> None:
    """What stands at padding may be anything."""
    input_BTI = noise(4, 6, 8)
    whole = heard(input_BTI)
    parts = heard(input_BTI[:1], input_BTI[1:])
    padded = torch.cat([input_BTI, torch.full((4, 2, 8), torch.nan)], dim=1)
    keep_BT = torch.tensor([True] * 6 + [False] * 2).expand(4, 8)
    for other in (parts, heard(padded, keep=keep_BT)):
        torch.testing.assert_close(other, whole, rtol=0, atol=0)


def test_several_are_put_together_by_their_weights() -> None:
    """A number counts for as many multiplications as it takes part in."""
    a, b = noise(1, 3, 7), noise(1, 5, 7) * 3
    both = Magnitudes.together([heard(a), heard(b)], [2, 1])
    torch.testing.assert_close(both, heard(a, a, b), rtol=0, atol=0)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_is_refused(value: float) -> None:
    """Overflowing activations have no threshold."""
    with pytest.raises(ValueError, match="activations are not finite"):
        heard(torch.tensor([[[1.0, value]]]))
