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

__all__ = [
    "Configured",
    "argument_defaults",
    "check_choice",
    "known_arguments",
    "meant",
    "meant_value",
    "nearest",
]

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
        for name, allowed in _checkable_arguments(type(self)).items():  # type: ignore[arg-type]
            allowed.check(f"{type(self).__name__}: {name}", getattr(self, name))

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
    **dict.fromkeys(("block_size", "blocksize"), ("columns",)),
    "percdamp": ("damping",),
    "lr": ("learning_rate",),
}
"""What an argument is called elsewhere, where the letters are not alike: what it may be here."""


def nearest(word: str, allowed: Sequence[str]) -> str | None:
    """The allowed word that is meant, if one is near, or the only one that begins like this.

    What other codes call it stands for it, too.
    """
    if here := [name for name in ELSEWHERE.get(word.lower(), ()) if name in allowed]:
        return here[0]
    lower = {name.lower(): name for name in reversed(allowed)}
    near = get_close_matches(word.lower(), lower, 1, 0.65)
    if not near and len(word) > 1:
        longer = [name for name in lower if name.startswith(word.lower())]
        near = longer if len(longer) == 1 else []
    return lower[near[0]] if near else None


def meant(word: str, allowed: Sequence[str]) -> str:
    """The question whether a near one of the allowed words was meant; "" where none is near."""
    near = nearest(word, allowed)
    return f" Did you mean {near}?" if near else ""


def meant_value(value: Any, allowed: Sequence[Any]) -> str:
    """The same of a value in Python, which is written as such."""
    words = [word for word in allowed if isinstance(word, str)]
    near = nearest(value, words) if isinstance(value, str) else None
    return f" Did you mean {near!r}?" if near else ""


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Refuse a value that an argument cannot have.

    Args:
        name: of the argument.
        value: what was given.
        allowed: what it can be.

    Raises:
        ValueError: it is none of these.
    """
    _Allowed(tuple(allowed)).check(name, value)


def known_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """A constructor that refuses unknown arguments, and values that a Literal type does not allow.

    For classes that are no `Configured`, and so write their constructor themselves.
    """
    names = list(signature(init).parameters)[1:]

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        owner = type(args[0])
        for name in kwargs:
            _refuse_unknown(owner, name, names)
        values = dict(zip(names, args[1:], strict=False)) | kwargs
        for name, allowed in _checkable_parameters(init).items():
            if name in values:
                allowed.check(f"{owner.__name__}: {name}", values[name])
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


@dataclass(frozen=True)
class _Allowed:
    """What an argument can be.

    Args:
        choices: one of these values,
        classes: or an object of one of these classes.
    """

    choices: tuple[Any, ...]
    classes: tuple[type, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Refuse any other value of the argument of a name.

        Raises:
            ValueError: it is another one; what is allowed, and what was meant.
        """
        if not isinstance(value, self.classes) and value not in self.choices:
            raise ValueError(f"{name}={value!r} is not allowed; it is {self._instead_of(value)}")

    def _instead_of(self, value: Any) -> str:
        objects = [f"an object of the class {cls.__name__}" for cls in self.classes]
        if self.choices not in ((), (None,)):
            values = f"one of {', '.join(map(repr, self.choices))}"
            words = ", or ".join([values, *objects])
        else:
            words = " or ".join([*objects, *map(repr, self.choices)])
        if isinstance(value, type):
            return f"{words}: write {value.__name__}()"
        guess = meant_value(value, self.choices)
        if isinstance(value, str) and not guess:
            guess = meant(value, _names_below(self.classes))
        return f"{words}.{guess}" if guess else words


def _allowed(hint: Any) -> _Allowed | None:
    """What a type allows, if it is of Literals, perhaps beside classes, or of our classes alone."""
    members = _members(hint)
    literals = [member for member in members if get_origin(member) is Literal]
    none, switch = type(None) in members, bool in members
    classes = tuple(m for m in members if isinstance(m, type) and m not in (bool, type(None)))
    if len(literals) + len(classes) + none + switch < len(members):
        return None
    if literals:
        values = tuple(value for member in literals for value in get_args(member))
        return _Allowed((False, True) * switch + values + (None,) * none, classes)
    if classes and not switch and all(issubclass(cls, Configured) for cls in classes):
        return _Allowed((None,) * none, classes)
    return None


def _checkable(hints: dict[str, Any]) -> dict[str, _Allowed]:
    """By argument, what it can be, where that can be checked."""
    table = {name: _allowed(hint) for name, hint in hints.items()}
    return {name: allowed for name, allowed in table.items() if allowed is not None}


@cache
def _checkable_arguments(cls: type[Configured]) -> dict[str, _Allowed]:
    return _checkable(_argument_types(cls))


@cache
def _checkable_parameters(init: Callable[..., None]) -> dict[str, _Allowed]:
    return _checkable(get_type_hints(init))
