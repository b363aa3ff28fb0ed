"""Classes whose annotated fields are their keyword arguments, and checks of their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache, wraps
from inspect import signature
from typing import Any, Literal, ParamSpec, get_type_hints

from typing_extensions import dataclass_transform

from lightning_prune.annotations import choices_of, classes_of, described, fits, members

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

    An argument of a wrong name, and a value that is not of its annotated type, are refused when the
    object is made. Subclasses check ranges in `__post_init__`, with `require`, and call that of
    their base first.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        # Inherited annotations are names in other modules; who reads the signature must not look
        # for them here.
        with suppress(NameError):
            cls.__init__.__annotations__ = _argument_types(cls) | {"return": None}
        cls.__init__ = _checking(cls.__init__)  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Check what the types do not say; here nothing."""

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


def _argument_types(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {name: hints[name] for name in argument_defaults(cls)}


ELSEWHERE = {
    **dict.fromkeys(("seqlen", "seq_len", "sequence_length", "max_seq_length"), ("length",)),
    **dict.fromkeys(("prune_ratio", "pruning_ratio"), ("ratio",)),
    **dict.fromkeys(("block_size", "blocksize"), ("columns",)),
    "layer": ("matrix",),  # scopes
    "block": ("columns",),
    "percdamp": ("damping",),
    "lr": ("learning_rate",),
}
"""What an argument, or a value, is called elsewhere: what it may be here."""


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
    _check(name, value, Literal[tuple(allowed)])


def known_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """A constructor that refuses unknown arguments, and values that are not of their types.

    For classes that are no `Configured`, and so write their constructor themselves.
    """
    names = list(signature(init).parameters)[1:]

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        owner = type(args[0])
        for name in kwargs:
            _refuse_unknown(owner, name, names)
        values = dict(zip(names, args[1:], strict=False)) | kwargs
        _check_types(owner, values, _types_of_parameters(init))
        init(*args, **kwargs)

    return checked


def _refuse_unknown(cls: type, name: str, names: Sequence[str]) -> None:
    if name not in names:
        allowed = f"Allowed: {', '.join(names)}." if names else "It takes none."
        raise TypeError(f"{cls.__name__} has no argument {name!r}.{meant(name, names)} {allowed}")


def _checking(init: Any) -> Any:
    """A constructor that refuses unknown arguments, and values that are not of their types."""

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        names = _own_first(type(self))
        for name in kwargs:
            _refuse_unknown(type(self), name, names)
        if args:
            hints = _argument_types(type(self))
            fitting = [name for name in names if type(args[0]) in members(hints.get(name))]
            example = f"{(fitting or names or [''])[0]}={args[0]!r}"
            raise TypeError(
                f"{type(self).__name__} takes its arguments by name, as in "
                f"{type(self).__name__}({example}); got {args[0]!r} without one"
            )
        hints = _types_of_fields(type(self))  # type: ignore[arg-type]
        defaults = vars(type(self))
        given = {n: v for n, v in kwargs.items() if n not in defaults or v is not defaults[n]}
        _check_types(type(self), given, hints)
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


def _check_types(cls: type, values: dict[str, Any], hints: dict[str, Any]) -> None:
    for name, value in values.items():
        _check(f"{cls.__name__}: {name}", value, hints.get(name, Any))


def _check(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of its argument's type.

    Raises:
        ValueError: it is not; what is allowed, and what was meant.
    """
    if not fits(value, hint):
        raise ValueError(f"{name}={value!r} is not allowed; it is {_instead_of(value, hint)}")


def _instead_of(value: Any, hint: Any) -> str:
    words, classes = described(hint), classes_of(hint)
    if isinstance(value, type):
        return f"{words}: write {value.__name__}()"
    if isinstance(value, str) and fits([value], hint):
        return f"{words}: write {[value]!r}"
    guess = meant_value(value, choices_of(hint))
    if isinstance(value, str) and not guess:
        guess = meant(value, _names_below(classes))
    return f"{words}.{guess}" if guess else words


@cache
def _types_of_fields(cls: type) -> dict[str, Any]:
    return _argument_types(cls)


@cache
def _types_of_parameters(init: Callable[..., None]) -> dict[str, Any]:
    return get_type_hints(init)
