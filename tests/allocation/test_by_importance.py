"""Shares that depend on how important blocks are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lightning_prune import CFSPSigmoid, FromFile, Inverse, Proportional
from lightning_prune.allocation import Allocation
from lightning_prune.allocation.exact import meet_in_proportion
from lightning_prune.evidence.influence import Angular

SIZES = [100, 300, 100, 50]
RATIOS = [round(0.05 * step, 2) for step in range(1, 19)]
IMPORTANCE = {
    "spread": [4.0, 1.0, 2.0, 3.0],
    "equal": [2.0, 2.0, 2.0, 2.0],
    "below zero": [-3.0, 0.1, -0.5, 2.0],
    "one huge": [1e9, 1.0, 2.0, 3.0],
}


def mean(shares: list[float]) -> float:
    return sum(s * n for s, n in zip(shares, SIZES, strict=True)) / sum(SIZES)


@pytest.mark.parametrize("name", IMPORTANCE)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    "allocation",
    [
        Inverse(max_share=0.95),
        Inverse(alpha=3.0, min_share=0.04, max_share=0.95, log=True),
        Proportional(max_share=0.95),
        CFSPSigmoid(),
        CFSPSigmoid(a=100.0),
    ],
    ids=repr,
)
def test_the_budget_is_met_by_size(allocation: Allocation, ratio: float, name: str) -> None:
    """Whatever is clipped, and whatever importance is like."""
    shares = allocation.shares(ratio, SIZES, IMPORTANCE[name])
    assert mean(shares) == pytest.approx(ratio, abs=1e-9)
    assert all(0 <= share <= 0.951 for share in shares)
    if name == "equal":
        assert shares == pytest.approx([ratio] * 4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_what_is_important_loses_less_or_more(alpha: float) -> None:
    """Inverse and proportional are each other's mirror, and CFSP is inverse."""
    order = [1, 2, 3, 0]  # from the least important to the most
    for allocation, more in ((Inverse(alpha=alpha), 1), (CFSPSigmoid(), 1), (Proportional(), -1)):
        shares = allocation.shares(0.3, SIZES, IMPORTANCE["spread"])
        falling = [shares[i] for i in order][::more]
        assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("allocation", [Inverse(), Proportional(), CFSPSigmoid()], ids=repr)
def test_equal_importance_gives_equal_shares(allocation: Allocation) -> None:
    """To the last digit that counts, and for no budget at all."""
    for budget in (0.0, 0.3, 0.8):
        assert allocation.shares(budget, SIZES, IMPORTANCE["equal"]) == pytest.approx(
            [budget] * 4, abs=1e-9
        )


@pytest.mark.parametrize("allocation", [Inverse(), Proportional(), CFSPSigmoid()], ids=repr)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_importance_that_is_no_number_is_refused(allocation: Allocation, value: float) -> None:
    """It would be shared out as if nothing was known, or as NaN."""
    with pytest.raises(ValueError, match=r"importance of blocks by \w+ is not finite: \["):
        allocation.shares(0.3, SIZES, [1.0, value, 2.0, 3.0])


def test_shares_in_proportion_follow_their_wishes() -> None:
    """What limits cut off goes to the others."""
    assert meet_in_proportion([1, 2, 3], 0.2, [1, 1, 1]) == pytest.approx([0.1, 0.2, 0.3])
    limited = meet_in_proportion([1, 2, 30], 0.2, [1, 1, 1], high=0.3)
    assert limited == pytest.approx([0.1, 0.2, 0.3])
    assert meet_in_proportion([0, 0], 0.4, [1, 3]) == pytest.approx([0.4, 0.4])
    assert meet_in_proportion([0, 1], 0.6, [1, 1], high=0.9) == pytest.approx([0.3, 0.9])


def test_limits_that_exclude_the_budget_are_named() -> None:
    """With what was asked for."""
    with pytest.raises(ValueError, match=r"max_share=0.2, and 0.3 is asked for overall; widen"):
        Inverse(max_share=0.2).shares(0.3, SIZES, IMPORTANCE["spread"])


def test_a_file_of_importance_is_used_in_place_of_a_measure(tmp_path: Path) -> None:
    """By the numbers of the blocks that are pruned."""
    path = tmp_path / "importance.json"
    path.write_text(json.dumps({"values": {"0": 4, "1": 1, "2": 2, "3": 3}}))
    allocation = Inverse(importance=str(path))
    assert allocation.evidence is None
    assert isinstance(Inverse(importance="angular").evidence, Angular)
    assert allocation.known_importance([1, 3], 4) == [1, 3]
    assert eval(repr(allocation)).shares(0.3, SIZES, [1, 2, 3, 4])


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", '{"values": {"0": 1}}', '{"values": {"0": 1, "1": "x"}}', "{}"]
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    """Damaged, of another kind, or of another model."""
    path = tmp_path / "importance.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"lightning-prune importance|Was it made for another"):
        Inverse(importance=str(path)).known_importance([0, 1], 2)
    with pytest.raises(ValueError, match="is no file of"):
        Inverse(importance=str(tmp_path / "nowhere.json")).known_importance([0, 1], 2)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (Inverse, {"importance": "taste"}, "importance='taste' .* 'mae', or the path of an impor"),
        (Inverse, {"alpha": 0}, "Inverse: alpha=0 is not allowed; it is above 0"),
        (
            Inverse,
            {"min_share": 0.5, "max_share": 0.4},
            r"min_share=0.5 .*in \[0, max_share\), and max_share is 0.4",
        ),
        (Inverse, {"min_share": -0.1}, "min_share=-0.1 is not allowed"),
        (Inverse, {"windows": -1}, "windows=-1 .* 1 or more calibration windows, or 0: all"),
        (Proportional, {"max_share": 1.0}, r"Proportional: max_share=1.0 .* it is in \(0, 1\)"),
        (CFSPSigmoid, {"a": -1}, "CFSPSigmoid: a=-1 is not allowed; it is 0 or more"),
        (CFSPSigmoid, {"a": math.inf}, "a=inf is not allowed"),
    ],
)
def test_arguments_out_of_range_are_refused(
    make: type[Allocation], settings: dict[str, Any], message: str
) -> None:
    """In the constructor, with what is allowed."""
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    "text", ["[0.1, 0.2, 0.3]", '{"0": 0.1, "1": 0.2, "2": 0.3}', '{"shares": [0.1, 0.2, 0.3]}']
)
def test_shares_come_from_a_file(tmp_path: Path, text: str) -> None:
    """As a list or by number, for the blocks that are pruned."""
    path = tmp_path / "shares.json"
    path.write_text(text)
    allocation = FromFile(path=str(path))
    assert allocation.known_importance([1, 2], 3) == [0.2, 0.3]
    assert allocation.shares(0.25, [1, 1], [0.2, 0.3]) == [0.2, 0.3]
    with pytest.raises(ValueError, match=r"remove 0.2500 overall, and 0.4000 is asked for"):
        allocation.shares(0.4, [1, 1], [0.2, 0.3])
    with pytest.raises(ValueError, match=r"\[3\] are lacking"):
        allocation.known_importance([1, 3], 4)
    with pytest.raises(ValueError, match="no others are lacking"):
        allocation.known_importance([1], 2)
    path.write_text('{"-1": 0.1, "0": 0.2}')
    with pytest.raises(ValueError, match="model has blocks 0 to 1"):
        allocation.known_importance([0], 2)


@pytest.mark.parametrize("text", ["", "3", "[1.5]", "[]", '{"a": 0.1}', '["x"]'])
def test_a_file_without_shares_is_refused(tmp_path: Path, text: str) -> None:
    """When the allocation is made."""
    path = tmp_path / "shares.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"no JSON file with the share|must be in \[0, 1\)"):
        FromFile(path=str(path))


@pytest.mark.parametrize("make", [Inverse, FromFile])
def test_another_file_at_the_same_path_is_another_allocation(
    make: type[Allocation], tmp_path: Path
) -> None:
    """So that a plan made by the old one is not taken for one made by the new one."""
    argument = "importance" if make is Inverse else "path"
    path = tmp_path / "numbers.json"
    identities = set()
    for values in ({"0": 0.1, "1": 0.2}, {"0": 0.2, "1": 0.1}):
        path.write_text(json.dumps({"values": values} if make is Inverse else values))
        identities |= {make(**{argument: str(path)}).identity for _ in range(2)}
    assert len(identities) == 2


def test_a_file_of_shares_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """It is not taken for one that is no JSON."""
    with pytest.raises(ValueError, match="FromFile: path=.*none.json' cannot be read: No such"):
        FromFile(path=str(tmp_path / "none.json"))
