"""Products with inputs that count as zero: what they are, and how weights lie for them."""

from __future__ import annotations

import itertools

import pytest
import torch

from lightning_prune.kernels import reference_product, without_small
from lightning_prune.kernels.columns import sum_of_columns
from lightning_prune.kernels.layout import column_major, is_column_major, row_major
from lightning_prune.kernels.reference import is_small
from lightning_prune.kernels.trial import CALLS, Trial


def test_an_input_at_the_threshold_counts_as_zero() -> None:
    """As in the paper: above it stays, of either sign. What is no number is not hidden."""
    input_I = torch.tensor([0.5, -0.5, 0.51, -0.51, 0.0, float("nan")])
    expected = torch.tensor([0.0, 0.0, 0.51, -0.51, 0.0, float("nan")])
    torch.testing.assert_close(without_small(input_I, 0.5), expected, equal_nan=True)


def test_half_precision_is_compared_as_it_is() -> None:
    """The threshold is not rounded to the type of the input."""
    input_I = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)  # neighbours
    assert is_small(input_I, 1.005).tolist() == [True, False]


def test_the_reference_is_a_sum_over_columns() -> None:
    """Written out."""
    input_BI, weight_OI = torch.randn(2, 5), torch.randn(3, 5)
    expected_BO = torch.zeros(2, 3)
    for b, o, i in itertools.product(range(2), range(3), range(5)):
        if abs(input_BI[b, i]) > 0.7:
            expected_BO[b, o] += input_BI[b, i] * weight_OI[o, i]
    torch.testing.assert_close(reference_product(input_BI, weight_OI, 0.7), expected_BO)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 16, 32), (1, 7, 1), (3, 33, 65)])
@pytest.mark.parametrize("threshold", [0.0, 0.7, 100.0])
def test_columns_sum_to_the_product(
    rows: int, outputs: int, inputs: int, threshold: float, dtype: torch.dtype, threads: int
) -> None:
    """With odd shapes, several rows and parts, all inputs, some, and none."""
    torch.manual_seed(0)
    input_BI = torch.randn(rows, inputs).to(dtype)
    weight_OI, bias_O = torch.randn(outputs, inputs).to(dtype), torch.randn(outputs).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        small_BI = is_small(input_BI, threshold)
        found = sum_of_columns(input_BI, small_BI, column_major(weight_OI), bias_O)
    finally:
        torch.set_num_threads(before)
    assert found.dtype == dtype
    expected = reference_product(input_BI, weight_OI, threshold, bias_O)
    coarse = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(found.float(), expected, rtol=coarse, atol=coarse)


def test_a_weight_is_laid_out_by_columns_and_back() -> None:
    """The same numbers; what is laid out already is not copied."""
    weight_OI = torch.randn(5, 3)
    by_columns_OI = column_major(weight_OI)
    assert by_columns_OI.stride() == (1, 5)
    torch.testing.assert_close(by_columns_OI, weight_OI, rtol=0, atol=0)
    assert column_major(by_columns_OI) is by_columns_OI
    assert row_major(by_columns_OI).stride() == weight_OI.stride()
    assert (is_column_major(weight_OI), is_column_major(by_columns_OI)) == (False, True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands until it is set."""
    now = [0.0]
    monkeypatch.setattr("lightning_prune.kernels.trial.time.perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(("columns", "chosen"), [(0.5, "columns"), (2.0, "dense")])
def test_both_ways_take_turns_and_the_faster_one_stays(
    columns: float, chosen: str, clock: list[float]
) -> None:
    """By the median: a call that was held up decides nothing."""
    trial, seen = Trial(), []
    for call in range(2 * CALLS):
        seen.append(trial.way)
        assert trial.speed is None
        with trial.timed(trial.way):
            clock[0] += 100.0 if call < 4 else {"dense": 1.0, "columns": columns}[trial.way]
    assert seen == ["dense", "columns"] * CALLS
    assert trial.speed == pytest.approx(1 / columns)
    assert trial.way == chosen
