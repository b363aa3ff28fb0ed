"""Parametrizations over the methods."""

from __future__ import annotations

import pytest

from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from tests.contract.cases import (
    CASES,
    METHODS,
)

every_case = pytest.mark.parametrize("case", CASES, ids=str)
unit_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if issubclass(case.cls, UnitPruning)], ids=str
)
calibrated = pytest.mark.parametrize(
    "case", [case for case in CASES if case.make().requests()], ids=str
)
every_method = pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
weight_methods = pytest.mark.parametrize(
    "cls", [c for c in METHODS if issubclass(c, WeightPruning)], ids=lambda cls: cls.__name__
)
unit_methods = pytest.mark.parametrize(
    "cls", [c for c in METHODS if issubclass(c, UnitPruning)], ids=lambda cls: cls.__name__
)
