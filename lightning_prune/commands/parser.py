"""From the signature of a function to its command line.

A parameter of the function that can be given by position is a positional argument, which may be
left out if it has a default; all others are options. Lists take several values. True and false are
flags: `--chat`, and `--no_verify` for `verify: bool = True`. A parameter that is a class of ours,
such as `Judge`, stands for the arguments of that class; one that is an abstract class, such as
`Scorer`, for an object of a class that is named: `--scorer Pattern --scorer.regex …`. What the
docstrings say of the parameters is the help.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser

from lightning_prune.parsing import OneLine, construct, import_public_names

__all__ = ["call", "help_of"]

PLAIN_TYPES = (str, int, float, bool, Path)


class _Parser(OneLine, ArgumentParser):
    """The parser of a command."""


def call(
    name: str,
    function: Callable[..., Any],
    arguments: Sequence[str],
    bare: Mapping[str, Sequence[Any]],
) -> None:
    """Call a function with what a command line says.

    Args:
        name: of the command.
        function: what runs it.
        arguments: of the command line, after the command's name.
        bare: what options that take several values mean when none is given.
    """
    text = parse_docstring(inspect.getdoc(function) or "")
    paragraphs = (text.short_description, text.long_description)
    description = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    parser = _Parser(prog=f"lightning-prune {name}", description=description)
    classes: dict[str, type] = {}
    for parameter, hint in _parameters(function):
        if any(inspect.isabstract(member) for member in (hint, *get_args(hint))):
            import_public_names()  # a class is named
            parser.add_instantiator(construct, object)
        elif inspect.isclass(hint) and hint not in PLAIN_TYPES:
            classes[parameter.name] = hint
    owners: list[Callable[..., Any]] = [function, *classes.values()]
    for owner in owners:
        by_place = owner is function
        texts = help_of(owner)
        for parameter, hint in _parameters(owner):
            if parameter.name not in classes:
                text_of = texts.get(parameter.name, "")
                _add(parser, parameter, hint, text_of, parameter.name in bare, by_place)
    values = vars(parser.instantiate(parser.parse_args(list(arguments))))
    values = {
        key: bare[key] if key in bare and value == [] else value for key, value in values.items()
    }
    made = {
        key: cls(**{p.name: values.pop(p.name) for p, _ in _parameters(cls) if p.name in values})
        for key, cls in classes.items()
    }
    function(**made, **values)


def _add(
    parser: ArgumentParser,
    parameter: inspect.Parameter,
    hint: Any,
    text: str,
    bare: bool,
    by_place: bool,
) -> None:
    """Add the argument of one parameter; `by_place`: it stands in the function's own signature."""
    name, default = parameter.name, parameter.default
    required = default is parameter.empty
    if hint is bool:
        option = f"--no_{name}" if default else f"--{name}"
        action = "store_false" if default else "store_true"
        parser.add_argument(option, dest=name, action=action, help="do not " * default + text)
        return
    settings: dict[str, Any] = {"type": hint, "help": text or None}
    if (item := _item(hint)) is not None:
        settings |= {"type": item, "nargs": "*" if bare else "+"}
        default = list(default) if isinstance(default, (list, tuple)) else default
        default = argparse.SUPPRESS if bare else default  # an empty list means something else
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and (required or by_place):
        left_out = {} if required else {"nargs": "?", "default": default}
        parser.add_argument(name, **settings, **left_out)
    elif required:
        parser.add_argument(f"--{name}", required=True, **settings)
    else:
        parser.add_argument(f"--{name}", default=default, **settings)


def _parameters(owner: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
    """The parameters of a function, or of a class's constructor, with their types."""
    hints = get_type_hints(owner.__init__ if inspect.isclass(owner) else owner)
    return [(p, hints[p.name]) for p in inspect.signature(owner).parameters.values()]


def help_of(owner: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each parameter, in one line."""
    text = parse_docstring(inspect.getdoc(owner) or "")
    return {p.arg_name: " ".join((p.description or "").split()) for p in text.params}


def _item(hint: Any) -> Any:
    """The type of the items of a list, also of one that may be None; None: it is no list."""
    choices = [hint, *(member for member in get_args(hint) if member is not NoneType)]
    for choice in choices:
        if get_origin(choice) in (list, Sequence):
            return get_args(choice)[0]
    return None
