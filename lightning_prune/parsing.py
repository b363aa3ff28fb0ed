"""Parsers whose errors are one line: what is wrong, the nearest right word, and what is allowed.

jsonargparse makes objects of what a command line or a configuration says, and its errors list every
type that it has tried. A parser with `OneLine` among its bases says what matters instead.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from inspect import isabstract, isclass
from typing import Any, NoReturn

from lightning_prune.checks import Configured, meant, nearest
from lightning_prune.class_paths import wrong_class_path

__all__ = ["OneLine", "Refused", "construct", "import_public_names", "public_names"]


class Refused(BaseException):
    """An error that ends the parsing, whatever other types a parser would still have tried.

    No `Exception`, because jsonargparse catches those, tries the next type of a union, and then
    says that none has fitted.

    Attributes:
        error: what is wrong.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def construct(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Make an object for a parser (`add_instantiator`), and end the parsing if that fails.

    Raises:
        Refused: the class has raised an error.
    """
    try:
        return make(*args, **kwargs)
    except Exception as error:
        raise Refused(error) from error


_YAML = {"None": "null", "True": "true", "False": "false"}


class OneLine:
    """For a jsonargparse parser: it remembers whose arguments it has, and its errors are one line.

    jsonargparse makes parsers of the same class for what is nested, such as the allocation of a
    method: the innermost one speaks.
    """

    _actions: list[argparse.Action]
    prog: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """A parser as jsonargparse makes it, but an option is known by its whole name alone."""
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_class_arguments(self, class_type: type, *args: Any, **kwargs: Any) -> list[str]:
        """Add the arguments of a class, and note it."""
        added: list[str] = super().add_class_arguments(class_type, *args, **kwargs)  # type: ignore[misc]
        nested_key = args[0] if args else kwargs.get("nested_key")
        vars(self).setdefault("_owners", {})[nested_key or ""] = class_type.__name__
        return added

    def owner(self, key: str = "") -> str:
        """The class that the arguments below a key are of; without a key, of all; "" if none is."""
        return str(vars(self).get("_owners", {}).get(key, ""))

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """The help, in which values are written as in YAML; docstrings write them as Python."""
        text: str = super().format_help(formatter)  # type: ignore[misc]
        return re.sub(r"\b(?:None|True|False)\b", lambda word: _YAML[word[0]], text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong.

        Raises:
            Refused: always.
        """
        raise Refused(ValueError(_reason(self, message, ex))) from ex


def public_names() -> list[str]:
    """The names that users write, as the package itself lists them."""
    return list(sys.modules[__name__.partition(".")[0]].__all__)


def import_public_names() -> None:
    """Import all public classes: a parser finds classes by name among those that are imported."""
    package = sys.modules[__name__.partition(".")[0]]
    for name in public_names():
        getattr(package, name)


# --- what an error means ---

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "list": "a list",
    "dict": "a mapping",
}
_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


def _reason(parser: OneLine, message: str, error: Exception | None) -> str:
    """One line for an error of a parser."""
    unknown = re.search(r"unrecognized arguments: --([\w.-]+)", message) or re.search(
        r"(?:Option|does not accept option) '([^']+)'", message
    )
    if unknown:
        return _unknown_argument(_command(parser), unknown[1])
    inner = message[max(message.rfind('Parser key "'), 0) :]  # the innermost of nested ones
    key = re.match(r'Parser key "([^"]+)"', inner)
    if key is None:
        return " ".join(message.split())
    name = f"{parser.owner()}.{key[1]}" if parser.owner() else key[1]
    if misspelt := _misspelt_class_key(inner):
        return f"{name}: {_not_allowed(misspelt, _CLASS_KEYS)}"
    for path in re.findall(r"Problem with given class_path '([^']+)'", inner):
        if wrong := wrong_class_path(path):
            return f"{name}={path} is not allowed: {wrong}"
    allowed = list(dict.fromkeys(_allowed(inner))) or _classes_of(parser, key[1])
    nested = re.search(r"Given value: NestedArg\(key='([^']+)'", inner)
    if nested:
        some = next((a for a in allowed if a in public_names()), "CLASS")
        return (
            f"{name}.{nested[1]} is an argument of a class that is not named yet. Name it first: "
            f"--{name} {some} --{name}.{nested[1]} …"
        )
    value = re.search(r"(?:Given|Got) value: (.*)", inner)
    simple = "Given value type: <class 'str'>" in inner or "Subtypes" not in inner
    no_class = re.search(r"Expected a dot import path string: (\S+)", inner)
    shown = value if value and simple else no_class or None
    if allowed and shown:
        return _not_allowed(f"{name}={shown[1]}", allowed, shown[1])
    rest = " ".join(inner.partition(":")[2].split())
    return f"{name}: {rest}"


_HIDDEN = ("subcommand", "print_config", "print_shtab")
"""Of a parser's arguments, those that are no argument of a command."""


def _written(action: argparse.Action) -> str:
    """An argument as it is written: what `--no_verify` sets is called verify."""
    long = (o for o in action.option_strings if o.startswith("--") and not o.endswith("+"))
    return next(long, action.dest).lstrip("-")


def _unknown_argument(parser: OneLine, key: str) -> str:
    """The line for a key that a parser does not know: whose it would be, and what there is."""
    known = [
        _written(action)
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    group = ""
    parts = key.split(".")
    for part in parts[:-1]:
        deeper = f"{group}{part}."
        if not any(name.startswith(deeper) for name in known):
            break
        group = deeper
    wrong = key[len(group) :].partition(".")[0]
    below = [n[len(group) :].partition(".")[0] for n in known if n.startswith(group)]
    allowed = [name for name in dict.fromkeys(below) if name not in _HIDDEN]
    owner = parser.owner(group.rstrip(".")) or group.rstrip(".") or parser.prog.split()[-1]
    by_place = [action.dest for action in parser._actions if not action.option_strings]
    if key in by_place:
        return f"{owner} takes {key} by its place, not by name: leave --{key} out"
    if parser.owner() and (not allowed or nearest(wrong, _CLASS_KEYS)):
        return f"{owner}: {_not_allowed(wrong, _CLASS_KEYS)}"
    guess = meant(wrong, [name for name in allowed if name not in by_place])
    return f"{owner} has no argument {wrong!r}.{guess} Allowed: {', '.join(allowed)}."


def _command(parser: OneLine) -> OneLine:
    """The parser of the command, where there is one: it knows the options."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and action.choices:
            return next(iter(action.choices.values()))
    return parser


def _not_allowed(what: str, allowed: Sequence[str], value: str | None = None) -> str:
    guess = meant(what if value is None else value, allowed)
    return f"{what} is not allowed.{guess} Allowed: {', '.join(allowed)}."


def _misspelt_class_key(message: str) -> str | None:
    """The key of a mapping that should name a class and does not."""
    value = re.search(r"Not a valid subclass of \w+\. Got value: (\{.*\})", message)
    if value is None:
        return None
    try:
        keys = list(ast.literal_eval(value[1]))
    except (ValueError, SyntaxError):
        return None
    return next((str(key) for key in keys if key not in _CLASS_KEYS), None)


def _allowed(message: str) -> Iterator[str]:
    """The values and types that a message of jsonargparse names, in words."""
    named = re.search(r"Subtypes: \[(.*)\]$|Expected a (.*)\. Got value", message, re.MULTILINE)
    if named is None:
        return
    pattern = r"typing\.Literal\[(.*?)\]|([\w.]*\.\w+)|<class '(\w+)'>"
    for literals, path, builtin in re.findall(pattern, named[1] or named[2]):
        if literals:
            yield from map(str, ast.literal_eval(f"({literals},)"))
        elif path:
            yield from _public_below(path)
        else:
            yield _WORDS.get(builtin, builtin)


def _classes_of(parser: OneLine, key: str) -> list[str]:
    """The public classes that an argument may be of, if it has to be an object."""
    types = (getattr(a, "_typehint", None) for a in parser._actions if a.dest == key)
    cls = next((hint for hint in types if isclass(hint) and issubclass(hint, Configured)), None)
    return [] if cls is None else _public_below(f"{cls.__module__}.{cls.__qualname__}")


def _public_below(path: str) -> list[str]:
    """The public names of the classes that can stand where a class is expected."""
    module, _, name = path.rpartition(".")
    try:
        below = [getattr(import_module(module), name)]
    except (ImportError, AttributeError, ValueError):
        return []
    names: list[str] = []
    while below:
        cls = below.pop(0)
        below += type.__subclasses__(cls)
        if cls.__name__ in public_names() and not isabstract(cls):
            names.append(cls.__name__)
    return names or [name]
