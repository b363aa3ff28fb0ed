"""From a fraction to a count."""

from __future__ import annotations

from fractions import Fraction

import pytest

from lightning_prune.selection import removed_count


@pytest.mark.parametrize("total", [1, 3, 7, 22, 64, 100, 172, 4096, 11008])
def test_hundredths_are_counted_as_written(total: int) -> None:
    """The count is the floor of the decimal number, not of its binary neighbour."""
    for hundredths in range(100):
        exact = Fraction(hundredths, 100) * total
        assert removed_count(total, hundredths / 100) == int(exact)


def test_29_percent_of_100_are_29() -> None:
    """100 * 0.29 is 28.999999999999996 in floating point."""
    assert removed_count(100, 0.29) == 29


@pytest.mark.parametrize("parts", [3, 7, 9, 12, 22, 49])
def test_one_part_of_n_is_one(parts: int) -> None:
    """1 / n of n units is one unit, for n that no binary fraction meets."""
    assert removed_count(parts, 1 / parts) == 1


@pytest.mark.parametrize("total", [872_415_232, 2_000_000_000, 10**10])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
def test_large_matrices_lose_no_weight_more(total: int, fraction: float) -> None:
    """The allowance for rounding does not grow to a whole weight."""
    assert removed_count(total, fraction) == int(Fraction(str(fraction)) * total)


@pytest.mark.parametrize("total", [1, 22, 4096])
def test_a_fraction_below_one_never_takes_all(total: int) -> None:
    """Something stays at 99.9%, and nothing goes at 0."""
    assert removed_count(total, 0.999) < total
    assert removed_count(total, 0.0) == 0
