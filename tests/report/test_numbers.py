"""How figures are written."""

from __future__ import annotations

import pytest

from lightning_prune.report.numbers import rate_text, size_text, times


@pytest.mark.parametrize(
    ("value", "text"),
    [(28973.4, "28,973"), (100.0, "100"), (99.96, "100"), (35.04, "35.0"), (5, "5.00"),
     (0.5, "0.500"), (0.00123, "0.00123")],
)  # fmt: skip
def test_a_rate_has_three_digits_at_least(value: float, text: str) -> None:
    """A slow one is not none."""
    assert rate_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.00 MB"), (1234, "1.23 kB"), (2_890_000, "2.89 MB")]
)
def test_small_sizes_are_not_zero(value: int, text: str) -> None:
    """They have a smaller unit."""
    assert size_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.003, "0.003x"), (0.05, "0.05x"), (1.064, "1.06x"), (1e5, "1e+05x")]
)
def test_small_shares_are_not_zero(value: float, text: str) -> None:
    """In two digits."""
    assert times(value, 1.0) == text
