"""N:M patterns: N kept of M."""

from __future__ import annotations

import pytest

from lightning_prune.selection import Pattern


@pytest.mark.parametrize(
    ("text", "kept", "group", "sparsity"),
    [("2:4", 2, 4, 0.5), ("4:8", 4, 8, 0.5), ("1:4", 1, 4, 0.75), ("7:8", 7, 8, 0.125)],
)
def test_n_is_the_number_kept(text: str, kept: int, group: int, sparsity: float) -> None:
    """1:4 keeps one of four, so that three quarters are zero."""
    pattern = Pattern.parse(text)
    assert (pattern.kept, pattern.group) == (kept, group)
    assert pattern.sparsity == sparsity
    assert str(pattern) == text


@pytest.mark.parametrize("text", ["4:2", "4:4", "0:4", "0:0"])
def test_n_lies_between_0_and_m(text: str) -> None:
    """A pattern that keeps all, none or more than all is no pattern."""
    with pytest.raises(ValueError, match=r"with 0 < N < M, as in 2:4"):
        Pattern.parse(text)


@pytest.mark.parametrize("text", ["abc", "", "2", "2:", ":4", "2:4:8", "-2:4", "2.0:4", "2/4"])
def test_other_texts_are_refused(text: str) -> None:
    """The message names the form."""
    with pytest.raises(ValueError, match=r"not of the form N:M .*'2:4'"):
        Pattern.parse(text)


@pytest.mark.parametrize("text", ["2:4", "4:8", "1:4", "16:32"])
def test_a_pattern_that_yaml_read_as_a_number_is_read_back(text: str) -> None:
    """YAML 1.1 takes N:M for a number of base 60."""
    kept, group = map(int, text.split(":"))
    assert Pattern.parse(60 * kept + group) == Pattern.parse(text)
