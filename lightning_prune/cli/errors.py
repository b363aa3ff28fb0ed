"""Errors that fit on one line, and are said once however many processes meet them."""

from __future__ import annotations

import ast
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import NoReturn

import jsonargparse
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune import callbacks, models

__all__ = ["fail", "is_ours", "parse_reason", "root_cause", "said_by_first_process"]

WAIT = 15.0  # seconds that another process has to fail first


def fail(reason: str) -> NoReturn:
    """Say what is wrong in one line, and exit with status 2."""
    if not said_by_first_process():
        rank = getattr(rank_zero_only, "rank", 0)
        where = f" in process {rank}" if rank else ""
        print(f"lightning-prune: error{where}: {reason}", file=sys.stderr)
    raise SystemExit(2)


def said_by_first_process() -> bool:
    """Whether this is a process that another one started, which has failed too and said why.

    Most errors are met by all processes. The others wait a little: if the first one goes, it has
    told the user; if it stays, the error is this process's own.
    """
    if not getattr(rank_zero_only, "rank", 0):
        return False
    parent, end = os.getppid(), time.monotonic() + WAIT
    while time.monotonic() < end:
        if os.getppid() != parent:
            return True
        time.sleep(0.1)
    return False


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by a line of this package."""
    return _raised_below(error, Path(__file__).parents[1])


def _raised_below(error: BaseException, folder: Path) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(folder)


def root_cause(error: BaseException) -> BaseException:
    """The error that matters; jsonargparse wraps it in one about every type that it tried.

    The wrapper's cause is the error of the first type alone. Those of the others, among them what a
    class says of its arguments, are in the frame that raised it.
    """
    if "Union subtypes" not in str(error):
        return error
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    tried = frames[-1].f_locals.get("exceptions") if frames else None
    roots = [root_cause(e) for e in tried or [error.__cause__] if isinstance(e, Exception)]
    parser = Path(jsonargparse.__file__).parent
    said = (root for root in roots if not _raised_below(root, parser))
    return next(said, roots[0] if roots else error)


# --- what a parser's error means ---

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "list": "a list",
    "dict": "a mapping",
}


def parse_reason(message: str, error: Exception | None) -> str:
    """One line for an argument that cannot be parsed: the key, the value, and what is allowed."""
    inner = message[max(message.rfind('Parser key "'), 0) :]  # the innermost of nested ones
    key = re.match(r'Parser key "([^"]+)"', inner)
    value = re.search(r"(?:Given|Got) value: (.*)", inner)
    simple = "Given value type: <class 'str'>" in inner or "Subtypes" not in inner
    allowed = list(dict.fromkeys(_allowed(inner)))
    unknown = re.search(r"Expected a dot import path string: (\S+)", inner)
    if key and value and allowed and (simple or unknown):
        given = value[1] if simple or unknown is None else unknown[1]
        near = get_close_matches(given.lower(), [a.lower() for a in allowed], 1, 0.75)
        guess = next((f"Did you mean {a}? " for a in allowed if near and a.lower() == near[0]), "")
        return f"{key[1]}={given} is not allowed. {guess}Allowed: {', '.join(allowed)}."
    nested = re.search(r"Given value: NestedArg\(key='([^']+)'", inner)
    if key and nested:
        name = next((a for a in allowed if a in (*callbacks.__all__, *models.__all__)), "CLASS")
        return (
            f"{key[1]}.{nested[1]} is an argument of a class that is not named yet. Name it first: "
            f"--{key[1]} {name} --{key[1]}.{nested[1]} …"
        )
    reason = " ".join(str(root_cause(error)).split()) if error is not None else message
    where = message.split(":", 1)[0] + ": " if key else ""
    return reason if reason.startswith(where) else where + reason


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
            yield from _known_below(path)
        else:
            yield _WORDS.get(builtin, builtin)


def _known_below(path: str) -> list[str]:
    """Names of the classes of this package that can stand where a class is expected."""
    module, _, name = path.rpartition(".")
    try:
        below = [getattr(import_module(module), name)]
    except (ImportError, AttributeError, ValueError):
        return []
    found: list[str] = []
    while below:
        cls = below.pop(0)
        below += type.__subclasses__(cls)
        named = cls.__name__ in (*callbacks.__all__, *models.__all__)
        if named and not isabstract(cls) and cls is not callbacks.PruneObserver:
            found.append(cls.__name__)
    return found or [name]
