"""Classes whose annotated fields are their keyword arguments, and checks of their values."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache, wraps
from inspect import signature
from typing import Any, Literal, ParamSpec, Union, get_args, get_origin, get_type_hints

from typing_extensions import dataclass_transform

__all__ = ["Configured", "argument_defaults", "known_arguments", "meant", "nearest"]

P = ParamSpec("P")


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Configured:
    """A class that is configured by keyword arguments, which are its annotated fields.

    Subclasses annotate their own arguments, with defaults, and inherit the others: every argument
    stands in the signature of every class. What is not annotated, or annotated as a ClassVar, is
    no argument.

    An argument of a wrong name, a value that a Literal type does not allow, and an object of a
    class that is not the one asked for are refused when the object is made. Subclasses check ranges
    in `__post_init__`, with `require`, and call that of their base first.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        # Inherited annotations are names in other modules; who reads the signature must not look
        # for them here.
        with suppress(NameError):
            cls.__init__.__annotations__ = _argument_types(cls) | {"return": None}
        cls.__init__ = _naming_typos(cls.__init__)  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Check the types that can be checked without knowing what a class is about."""
        checkable = _checkable(type(self))  # type: ignore[arg-type]
        for name, (choices, classes) in checkable.items():
            value = getattr(self, name)
            if choices and value not in choices:
                allowed = ", ".join(map(repr, choices))
                raise ValueError(self._says(name, f"it is one of {allowed}"))
            if classes and not isinstance(value, classes):
                wanted = " or ".join(
                    "None" if cls is type(None) else f"an object of the class {cls.__name__}"
                    for cls in classes
                )
                if isinstance(value, type):
                    wanted += f": write {value.__name__}()"
                if isinstance(value, str) and (guess := meant(value, _names_below(classes))):
                    wanted += f".{guess}"
                raise ValueError(self._says(name, f"it is {wanted}"))

    def require(self, name: str, holds: bool, allowed: str) -> None:
        """Refuse the value of an argument.

        Args:
            name: of the argument.
            holds: whether its value is allowed.
            allowed: what is, as the end of a sentence: "it is in (0, 1)".

        Raises:
            ValueError: it is not.
        """
        if not holds:
            raise ValueError(self._says(name, allowed))

    def _says(self, name: str, allowed: str) -> str:
        return f"{type(self).__name__}: {name}={getattr(self, name)!r} is not allowed; {allowed}"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name, with their values."""
        return {name: getattr(self, name) for name in argument_defaults(type(self))}

    def __repr__(self) -> str:
        """The call that makes this object again, without arguments left at their defaults."""
        defaults = argument_defaults(type(self))
        values = self.arguments.items()
        shown = [f"{k}={v!r}" for k, v in values if repr(v) != repr(defaults[k])]
        return f"{type(self).__name__}({', '.join(shown)})"


def argument_defaults(cls: type[Configured]) -> dict[str, Any]:
    """The arguments of a class by name, with their defaults."""
    return {argument.name: argument.default for argument in fields(cls) if argument.init}  # type: ignore[arg-type]


def _argument_types(cls: type[Configured]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {name: hints[name] for name in argument_defaults(cls)}


ELSEWHERE = {
    **dict.fromkeys(("seqlen", "seq_len", "sequence_length", "max_seq_length"), ("length",)),
    **dict.fromkeys(("prune_ratio", "pruning_ratio"), ("ratio",)),
    "lr": ("learning_rate",),
}
"""What an argument is called elsewhere, where the letters are not alike: what it may be here."""


def nearest(word: str, allowed: Sequence[str]) -> str | None:
    """The allowed word that is meant, if one is near, or stands for the same in other codes."""
    if here := [name for name in ELSEWHERE.get(word.lower(), ()) if name in allowed]:
        return here[0]
    lower = {name.lower(): name for name in reversed(allowed)}
    near = get_close_matches(word.lower(), lower, 1, 0.65)
    return lower[near[0]] if near else None


def meant(word: str, allowed: Sequence[str]) -> str:
    """The question whether a near one of the allowed words was meant; "" where none is near."""
    near = nearest(word, allowed)
    return f" Did you mean {near}?" if near else ""


def known_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """A constructor that names its class, and the nearest argument, when one is unknown.

    For classes that are no `Configured`, and so write their constructor themselves.
    """
    names = list(signature(init).parameters)[1:]

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        for name in kwargs:
            _refuse_unknown(type(args[0]), name, names)
        init(*args, **kwargs)

    return checked


def _refuse_unknown(cls: type, name: str, names: Sequence[str]) -> None:
    if name not in names:
        allowed = f"Allowed: {', '.join(names)}." if names else "It takes none."
        raise TypeError(f"{cls.__name__} has no argument {name!r}.{meant(name, names)} {allowed}")


def _naming_typos(init: Any) -> Any:
    """A constructor that names the class, and the nearest argument, when one is unknown."""

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        names = _own_first(type(self))
        for name in kwargs:
            _refuse_unknown(type(self), name, names)
        if args:
            hints = _argument_types(type(self))
            fitting = [name for name in names if type(args[0]) in _members(hints.get(name))]
            example = f"{(fitting or names or [''])[0]}={args[0]!r}"
            raise TypeError(
                f"{type(self).__name__} takes its arguments by name, as in "
                f"{type(self).__name__}({example}); got {args[0]!r} without one"
            )
        init(self, **kwargs)

    return checked


def _own_first(cls: type) -> list[str]:
    """The names of a class's arguments, its own before those that it inherits."""
    known = argument_defaults(cls)
    names = (name for base in cls.__mro__ for name in vars(base).get("__annotations__", {}))
    return list(dict.fromkeys(name for name in names if name in known))


def _names_below(classes: Sequence[type]) -> list[str]:
    """The names of classes and of all that are made from them."""
    names: list[str] = []
    for cls in classes:
        names += [cls.__name__, *_names_below(type.__subclasses__(cls))]
    return names


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


@cache
def _checkable(cls: type[Configured]) -> dict[str, tuple[tuple[Any, ...], tuple[type, ...]]]:
    """By argument: the values of its Literal type, perhaps beside bool, or its classes of ours."""
    table: dict[str, tuple[tuple[Any, ...], tuple[type, ...]]] = {}
    for argument, hint in _argument_types(cls).items():
        members = _members(hint)
        literals = [member for member in members if get_origin(member) is Literal]
        ours = [
            member
            for member in members
            if isinstance(member, type) and issubclass(member, Configured)
        ]
        none, switch = type(None) in members, bool in members
        if literals and len(literals) + none + switch == len(members):
            values = tuple(value for member in literals for value in get_args(member))
            table[argument] = ((False, True) * switch + values + (None,) * none, ())
        elif ours and len(ours) + none == len(members):
            table[argument] = ((), (*ours, *((type(None),) * none)))
    return table
