"""Methods as the command line reads them: help, YAML, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
from jsonargparse import ArgumentParser, Namespace

from lightning_prune import LeastSquares, Progressive, Wanda
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.checks import Configured, argument_defaults
from lightning_prune.methods.base import Method
from tests.contract.cases import CASES, METHODS, NESTED, SETTINGS, Case


def parser_of(cls: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "method")
    return parser


def made(parser: ArgumentParser, config: Namespace) -> Any:
    return parser.instantiate_classes(config).method


@pytest.mark.parametrize("cls", [*METHODS, Progressive], ids=lambda cls: cls.__name__)
def test_help_shows_every_argument_with_its_type(cls: type[Method]) -> None:
    """Inherited ones too, each with what its docstring says of it."""
    text = io.StringIO()
    parser_of(cls).print_help(text)
    shown = " ".join(text.getvalue().split())
    assert "Unvalidated" not in shown, "a type was not found"
    for name in argument_defaults(cls):
        start = shown.rindex(f"--method.{name} ")
        option = shown[start : shown.index("(type: ", start)].split()
        assert len(option) > 3 or cls.__module__.startswith("tests."), f"{name} is not described"


@pytest.mark.parametrize("case", [case for case in CASES if not case.nested], ids=str)
def test_settings_are_parsed_and_dumped_again(case: Case) -> None:
    """What is dumped has all defaults, and makes the same method."""
    parser = parser_of(case.cls)
    config = parser.parse_object({"method": case.settings | {"layer_end": 2}})
    method = made(parser, config)
    assert repr(method) == repr(case.make(layer_end=2))
    dumped = parser.dump(config, skip_none=False)
    for name in argument_defaults(case.cls):
        assert f"\n  {name}:" in dumped
    again = parser_of(case.cls)
    assert repr(made(again, again.parse_string(dumped))) == repr(method)


def subclass_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PruningCallback, "method")
    return parser


@pytest.mark.parametrize("one", NESTED, ids=repr)
def test_objects_in_objects_are_made_by_their_class_path(one: PruningCallback) -> None:
    """As in a YAML file, by the public names."""

    def said(value: Any) -> Any:
        if not isinstance(value, Configured):
            return list(value) if isinstance(value, tuple) else value
        arguments = {name: said(argument) for name, argument in value.arguments.items()}
        return {"class_path": f"lightning_prune.{type(value).__name__}", "init_args": arguments}

    parser = subclass_parser()
    assert repr(made(parser, parser.parse_object({"method": said(one)}))) == repr(one)


def test_null_is_none() -> None:
    """`repair: null` repairs nothing, and what is left out is repaired as always."""
    parser = subclass_parser()
    for text, repair in (("null", None), ("{class_path: lightning_prune.Bias}", "Bias()")):
        config = parser.parse_string(
            "method: {class_path: lightning_prune.FLAP, init_args: {ratio: 0.4, repair: "
            f"{text}}}}}"
        )
        found = made(parser, config).repair
        assert found is None if repair is None else repr(found) == repair
    config = parser.parse_string(
        "method: {class_path: lightning_prune.FLAP, init_args: {ratio: 0.4}}"
    )
    assert isinstance(made(parser, config).repair, LeastSquares)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("layer_start", "first"),
        ("keep_scores", "perhaps"),
        ("sparsity", "half"),
        ("propagate", "linear"),
        ("scope", "block"),
        ("allocation", "3"),
        ("layer_begin", "1"),
    ],
)
def test_values_of_another_type_are_refused_by_the_parser(argument: str, value: str) -> None:
    """Before anything is loaded, and by the argument's name."""
    with pytest.raises(Exception, match=argument) as error:
        parser_of(Wanda).parse_args(["--method.sparsity=0.5", f"--method.{argument}={value}"])
    assert type(error.value).__name__ == "ArgumentError"


def test_settings_name_every_method() -> None:
    """Those of the package and those from outside."""
    assert {cls.__name__ for cls in METHODS} == SETTINGS.keys()
