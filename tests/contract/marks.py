"""Parametrizations over the methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any

import pytest

from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from tests.contract.cases import (
    CASES,
    METHODS,
)

CUTS = [case for case in CASES if issubclass(case.cls, UnitPruning)]
CALIBRATED = [case for case in CASES if case.make().requests()]


def in_turn(ones: Iterable[Any], others: Sequence[Any], each: int) -> Iterator[tuple[Any, Any]]:
    """Every one with the first of the others and, going round, some more: pairs, not all of them.

    A method and a family have little to do with each other: every method meets several families,
    and every family many methods.
    """
    rest = cycle(others[1:])
    for one in ones:
        for other in (others[0], *(next(rest) for _ in range(each - 1))):
            yield one, other


def alternately(ones: Iterable[Any], others: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Every one with one of the others, which take turns."""
    return list(zip(ones, cycle(others)))  # the others have no end


every_case = pytest.mark.parametrize("case", CASES, ids=str)
unit_cases = pytest.mark.parametrize("case", CUTS, ids=str)
calibrated = pytest.mark.parametrize("case", CALIBRATED, ids=str)
every_method = pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
weight_methods = pytest.mark.parametrize(
    "cls", [c for c in METHODS if issubclass(c, WeightPruning)], ids=lambda cls: cls.__name__
)
unit_methods = pytest.mark.parametrize(
    "cls", [c for c in METHODS if issubclass(c, UnitPruning)], ids=lambda cls: cls.__name__
)
