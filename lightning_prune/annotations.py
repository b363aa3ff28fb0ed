"""Whether a value is of the type that an argument is annotated with, and that type in words."""

from __future__ import annotations

import os
import types
from collections import abc
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import numpy as np
import torch

__all__ = ["choices_of", "classes_of", "described", "fits", "members"]


class _Kind(NamedTuple):
    """One type, no union.

    Attributes:
        words: what it is.
        holds: whether a value is of it.
        many: what several of them are called.
    """

    words: str
    holds: Callable[[Any], bool]
    many: str = ""


def _number(cls: type) -> Callable[[Any], bool]:
    """NumPy's numbers are numbers; True and False are none."""
    return lambda value: isinstance(value, cls) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    """Paths are understood where texts are."""
    return isinstance(value, (str, os.PathLike))


PLAIN = {
    bool: _Kind("True or False", lambda value: isinstance(value, bool)),
    int: _Kind("a whole number", _number(Integral), "whole numbers"),
    float: _Kind("a number", _number(Real), "numbers"),
    str: _Kind("a text", _text, "texts"),
    Path: _Kind("a path", _text, "paths"),
}
"""Types of the language; bool stands before int, which it is made from."""


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; it is of one that is not known here."""
    if isinstance(value, np.generic):
        value = value.item()
    kinds = map(_kind, members(hint))
    return any(kind is None or kind.holds(value) for kind in kinds)


def described(hint: Any) -> str:
    """An annotated type in words, as the end of a sentence: "a number or None"."""
    choices = [member for member in members(hint) if get_origin(member) is Literal]
    said = {type(None), *([bool] if choices else []), *([str] if Path in members(hint) else [])}
    kinds = [_kind(m) for m in members(hint) if m not in said and m not in choices]
    words = [kind.words for kind in kinds if kind is not None]
    if choices:
        return ", or ".join([f"one of {', '.join(map(repr, choices_of(hint)))}", *words])
    return " or ".join([*words, *["None"] * (type(None) in members(hint))])


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def choices_of(hint: Any) -> tuple[Any, ...]:
    """The values that a type names: True and False, those of its Literals, and None."""
    literals = [v for m in members(hint) if get_origin(m) is Literal for v in get_args(m)]
    switch = [False, True] if bool in members(hint) else []
    return (*switch, *literals, *[None] * (type(None) in members(hint)))


def classes_of(hint: Any) -> tuple[type, ...]:
    """The classes that a type asks for an object of, those of the language left out."""
    known = (*PLAIN, type(None))
    return tuple(m for m in members(hint) if isinstance(m, type) and not issubclass(m, known))


def _kind(hint: Any) -> _Kind | None:
    """What a type that is no union asks for; None: it is not known here, as Any is not."""
    for cls, plain in PLAIN.items():
        if isinstance(hint, type) and issubclass(hint, cls):
            return plain
    arguments, origin = get_args(hint), get_origin(hint) or hint
    if origin is Literal:
        return _Kind("", lambda value: any(_same(value, choice) for choice in arguments))
    if not isinstance(origin, type) or hint is Any or not _can_be_asked(origin):
        return None
    if issubclass(origin, tuple) and arguments[-1:] != (...,):
        return _list_of(Any)  # each place has a type of its own
    if issubclass(origin, abc.Sequence) and arguments:
        return _list_of(arguments[0])
    if origin is abc.Callable:
        return _Kind("a function", callable)
    name = f"an object of the class {origin.__name__}"
    words = "a mapping" if issubclass(origin, abc.Mapping) else name
    return _Kind(words, lambda value: isinstance(value, origin))


def _can_be_asked(cls: type) -> bool:
    """Whether isinstance knows it; of most protocols and typed dictionaries it does not."""
    try:
        isinstance(None, cls)
    except TypeError:
        return False
    return True


def _list_of(item: Any) -> _Kind:
    one = _kind(item)

    def holds(value: Any) -> bool:
        if isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim == 1:
            value = value.tolist()
        is_list = isinstance(value, abc.Sequence) and not isinstance(value, (str, bytes))
        return is_list and all(fits(element, item) for element in value)

    many = one.many if one is not None else ""
    return _Kind(f"a list of {many}" if many else "a list", holds)


def _same(value: Any, choice: Any) -> bool:
    """Whether they are equal; 1 is not True."""
    if isinstance(value, bool) or isinstance(choice, bool):
        return value is choice
    return isinstance(value, type(choice)) and value == choice
