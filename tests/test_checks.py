"""Classes that are configured by keyword arguments: signatures, refusals, repr, and YAML."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from lightning_prune import (
    CFSP,
    FLAP,
    OWL,
    Bias,
    BlockFit,
    CFSPSigmoid,
    Inverse,
    LeastSquares,
    MagnitudeSP,
    PerBlock,
    Progressive,
    Uniform,
    Wanda,
)
from lightning_prune.checks import Configured, argument_defaults, meant, nearest
from lightning_prune.methods.base import Method
from tests.contract.cases import METHODS

Shape = Literal["round", "square"]


class Base(Configured):
    """A few arguments.

    Args:
        size: how large.
    """

    KIND: ClassVar[str] = "base"

    size: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("size", self.size > 0, "it is above 0")


class Shaped(Base):
    """One more, that has to be given.

    Args:
        name: what it is called.
        shape: what it looks like.
        inner: one of these in it.
    """

    name: str
    shape: Shape | None = "round"
    inner: Base | None = None


class Small(Shaped):
    """Another default, and a name that is no argument."""

    size: int = 1
    KIND = "small"


# --- signatures ---


def test_inherited_arguments_stand_in_the_signature() -> None:
    """In the order of the classes, by name only; a class attribute is none."""
    for cls in (Shaped, Small):
        parameters = inspect.signature(cls).parameters
        assert list(parameters) == ["size", "name", "shape", "inner"]
        assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert inspect.signature(Small).parameters["size"].default == 1
    assert inspect.signature(Shaped).parameters["name"].default is inspect.Parameter.empty
    assert list(argument_defaults(Small)) == list(inspect.signature(Small).parameters)


def test_the_order_of_arguments_does_not_matter() -> None:
    """Nor whether those with a default come first."""
    one, other = Small(name="a", shape=None, size=7), Small(size=7, shape=None, name="a")
    assert (
        one.arguments == other.arguments == {"size": 7, "name": "a", "shape": None, "inner": None}
    )
    assert repr(one) == repr(other) == "Small(size=7, name='a', shape=None)"


def test_annotations_are_types_and_not_names_of_another_module() -> None:
    """Who reads the signature of a method does not know where its family found a name."""
    for cls in (Small, *METHODS):
        for name, parameter in inspect.signature(cls).parameters.items():
            assert not isinstance(parameter.annotation, str), f"{cls.__name__}.{name}"


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_every_method_has_the_arguments_of_its_family(cls: type[Method]) -> None:
    """All that any of its bases annotates, once, with the default of the nearest."""
    parameters = inspect.signature(cls).parameters
    for base in cls.__mro__:
        if issubclass(base, Configured) and base is not Configured:
            assert argument_defaults(base).keys() <= parameters.keys()
    for name in argument_defaults(Method):
        assert parameters[name].default == argument_defaults(Method)[name]


# --- refusals ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Wanda(exlude="x"),
            r"^Wanda has no argument 'exlude'\. Did you mean exclude\? All",
        ),  # type: ignore[call-arg]
        (
            lambda: Wanda(sparsity=0.5, sope="row"),
            r"^Wanda has no argument 'sope'\. .* mean scope\?",
        ),  # type: ignore[call-arg]
        (
            lambda: FLAP(ratio=0.3, meteric="IFV"),
            r"FLAP has no argument 'meteric'\. .* mean metric\?",
        ),  # type: ignore[call-arg]
        (
            lambda: FLAP(ratio=0.3, min_unit=2),
            r"FLAP has no argument 'min_unit'\. .* mean min_units\?",
        ),  # type: ignore[call-arg]
        (
            lambda: OWL(lambda_=0.1, m=5),  # type: ignore[call-arg]
            r"OWL has no argument 'm'\. Did you mean M\?",
        ),
        (
            lambda: Inverse(max_shares=0.5),  # type: ignore[call-arg]
            r"Inverse has no argument 'max_shares'\. .* max_share\?",
        ),
        (
            lambda: LeastSquares(rigde=0.1),  # type: ignore[call-arg]
            r"LeastSquares has no argument 'rigde'\. .* ridge\?",
        ),
        (
            lambda: Wanda(colour="red"),  # type: ignore[call-arg]
            r"Wanda has no argument 'colour'\. Allowed: adaptive, token_weight, .*, block_fit\.$",
        ),
        (lambda: Shaped(), "missing 1 required keyword-only argument: 'name'"),  # type: ignore[call-arg]
    ],
)
def test_a_misspelt_argument_is_named_with_the_nearest(make: Any, message: str) -> None:
    """And the class that does not have it; the word itself where none is near."""
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Wanda(0.5),
            r"^Wanda takes its arguments by name, as in Wanda\(sparsity=0.5\); got 0.5",
        ),  # type: ignore[misc]
        (lambda: LeastSquares(0.1), r"LeastSquares\(ridge=0.1\); got 0.1 without one$"),  # type: ignore[misc]
        (
            lambda: Inverse("angular"),
            r"Inverse\(importance='angular'\); got 'angular' without one$",
        ),  # type: ignore[misc]
        (lambda: PerBlock([0.5]), r"PerBlock\(fractions=\[0.5\]\); got \[0.5\] without one$"),  # type: ignore[misc]
        (lambda: Uniform(1), "Uniform takes its arguments by name"),  # type: ignore[call-arg]
    ],
)
def test_positions_are_no_names(make: Any, message: str) -> None:
    """Said in one sentence."""
    with pytest.raises(TypeError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Shaped(name="a", shape="flat"),
            "Shaped: shape='flat' is not allowed; it is one",
        ),  # type: ignore[arg-type]
        (lambda: Shaped(name="a", shape="flat"), "'round', 'square', None$"),  # type: ignore[arg-type]
        (lambda: Shaped(name="a", inner="b"), "inner='b' is not .* the class Base or None$"),  # type: ignore[arg-type]
        (lambda: Shaped(name="a", inner=Base), "inner=<class .*Base'> is not allowed"),  # type: ignore[arg-type]
        (lambda: Small(name="a", size=0), "Small: size=0 is not allowed; it is above 0"),
        (
            lambda: FLAP(ratio=0.3, repair="LeastSquares"),  # type: ignore[arg-type]
            "FLAP: repair='LeastSquares' is not .* it is an object of the class Repair or None",
        ),
        (
            lambda: FLAP(ratio=0.3, repair=LeastSquares),  # type: ignore[arg-type]
            "repair=<class .*LeastSquares'> is not allowed",
        ),
        (
            lambda: Wanda(sparsity=0.5, allocation=3),  # type: ignore[arg-type]
            "Wanda: allocation=3 is not allowed; it is an object of the class Allocation$",
        ),
        (lambda: Wanda(sparsity=0.5, allocation=Bias()), r"allocation=Bias\(\) is not allowed"),  # type: ignore[arg-type]
        (
            lambda: Wanda(sparsity=0.5, propagate=None),
            "propagate=None .* 'layer', 'none'$",
        ),  # type: ignore[arg-type]
        (lambda: MagnitudeSP(ratio=0.3, norm=None), "norm=None is not allowed; it is one of 1, 2"),  # type: ignore[arg-type]
        (
            lambda: Small(name="a", size="3"),
            "Small: size='3' is not .*; it is a whole number$",
        ),  # type: ignore[arg-type]
        (
            lambda: Wanda(sparsity=0.5, layer_start="a"),
            "layer_start='a' .* it is a whole number$",
        ),  # type: ignore[arg-type]
        (lambda: Wanda(sparsity="0.5"), "sparsity='0.5' is not allowed; it is a number or None$"),  # type: ignore[arg-type]
        (lambda: Wanda(sparsity=True), "sparsity=True is not allowed; it is a number or None$"),
        (
            lambda: Wanda(sparsity=0.5, adaptive=1),
            "adaptive=1 is not .* it is True or False$",
        ),  # type: ignore[arg-type]
        (lambda: Wanda(sparsity=0.5, offload=1), "offload=1 is not .* one of False, True, 'disk'$"),  # type: ignore[arg-type]
        (
            lambda: Wanda(pattern=2.5),
            "pattern=2.5 .* it is a text or a whole number or None$",
        ),  # type: ignore[arg-type]
        (lambda: Wanda(sparsity=0.5, include=3), "include=3 .* it is a text or a list of texts$"),  # type: ignore[arg-type]
        (lambda: Wanda(sparsity=0.5, exclude=["a", 3]), r"exclude=\['a', 3\] is not allowed"),  # type: ignore[list-item]
        (lambda: Wanda(plan=3), "it is an object of the class Plan or a path or None$"),  # type: ignore[arg-type]
        (lambda: PerBlock(fractions=0.5), "fractions=0.5 is not allowed; it is a list of numbers$"),  # type: ignore[arg-type]
        (lambda: PerBlock(fractions="0.5"), "fractions='0.5' is not .*; it is a list of numbers$"),  # type: ignore[arg-type]
        (lambda: BlockFit(steps=2.5), "BlockFit: steps=2.5 is not allowed; it is a whole number$"),  # type: ignore[arg-type]
        (lambda: MagnitudeSP(ratio=0.3, norm=True), "norm=True is not allowed; it is one of 1, 2"),  # type: ignore[arg-type]
        (
            lambda: Progressive(method=Wanda(sparsity=0.5)),  # type: ignore[arg-type]
            "Progressive: method=Wanda.* is not allowed; it is an object of the class UnitPruning",
        ),
    ],
)
def test_values_that_the_type_does_not_allow_are_refused(make: Any, message: str) -> None:
    """When the object is made; the message names class, argument, value and what is allowed."""
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_are_numbers_of_numpy_too() -> None:
    """A whole one is a number, a path a text, and a tuple a list."""
    wanda = Wanda(sparsity=np.float32(0.5), layer_start=np.int64(1), exclude=("a",))
    assert (wanda.layer_start, wanda.exclude) == (1, ("a",))
    assert LeastSquares(ridge=1).ridge == 1
    assert Base(size=np.int64(2)).size == 2
    assert Wanda(plan=Path("plan")).plan == Path("plan")


class Handed(Configured):
    """Types of which nothing is known, and functions."""

    anything: Any
    function: Callable[[int], int] | None = None
    table: dict[str, Any] | None = None


def test_what_has_no_type_is_anything() -> None:
    """A function is what can be called."""
    assert Handed(anything=Base).anything is Base
    assert Handed(anything=3, function=abs, table={}).function is abs
    with pytest.raises(ValueError, match="function=3 is not allowed; it is a function or None$"):
        Handed(anything=3, function=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="table=3 is not allowed; it is a mapping or None$"):
        Handed(anything=3, table=3)  # type: ignore[arg-type]


def test_none_is_none_where_it_is_allowed() -> None:
    """It does not stand for a default."""
    assert Shaped(name="a", shape=None).shape is None
    assert FLAP(ratio=0.3, repair=None).effective_repair is None
    assert FLAP(ratio=0.3, repair=None).arguments["repair"] is None
    assert Wanda(sparsity=0.5, scope=None).scope is None
    assert isinstance(CFSP(ratio=0.3).effective_allocation, CFSPSigmoid)
    with pytest.raises(ValueError, match="CFSP: allocation=None is not allowed; it is an object"):
        CFSP(ratio=0.3, allocation=None)  # type: ignore[arg-type]


def test_a_name_is_near_or_there_is_none() -> None:
    """In whatever case it is written; and a sentence about it, or nothing."""
    names = ["include", "exclude", "M"]
    assert nearest("exlude", names) == nearest("EXCLUDE", names) == "exclude"
    assert nearest("m", names) == "M"
    assert nearest("colour", names) is None
    assert meant("exlude", names) == " Did you mean exclude?"
    assert meant("colour", names) == ""
    assert meant("seqlen", ["source", "length"]) == " Did you mean length?"
    assert meant("seqlen", ["source"]) == ""
    assert meant("blocksize", ["damping", "columns"]) == " Did you mean columns?"
    assert meant("accel", ["accelerator", "strategy"]) == " Did you mean accelerator?"
    assert meant("accel", ["accelerator", "accelerators_of_all"]) == ""
