"""Methods as studies are given them: a class, or what a configuration says of one."""

from __future__ import annotations

import copy
import pydoc
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser

from lightning_prune.methods.base import Method
from lightning_prune.parsing import OneLine, Refused, construct, import_public_names

__all__ = ["Spec", "is_named", "label", "make", "with_arguments", "without_arguments"]

Spec = str | Mapping[str, Any] | Callable[..., Any] | Method
"""A method: a class, a `functools.partial` of one, or, as in a configuration, its name or a mapping
of its `class_path` and `init_args`; or a method that is made already, where nothing is added."""


class _Parser(OneLine, ArgumentParser):
    """Makes methods."""


def label(spec: Spec) -> str:
    """A method as a call: its class and the arguments that are given."""
    if isinstance(spec, partial):
        spec = {"class_path": spec.func.__name__, "init_args": spec.keywords}
    if isinstance(spec, Method) or callable(spec):
        return getattr(spec, "__name__", repr(spec))
    if isinstance(spec, str):
        spec = {"class_path": spec}
    name = str(spec.get("class_path", "")).rpartition(".")[2]
    arguments = ", ".join(
        f"{name}={label(value) if isinstance(value, Mapping) else value}"
        for name, value in (spec.get("init_args") or {}).items()
    )
    return f"{name}({arguments})" if arguments else name


def is_named(spec: Spec, base: type) -> bool:
    """Whether the class of a method, which need not be made yet, is of a kind."""
    if isinstance(spec, (str, Mapping)):
        path = spec if isinstance(spec, str) else str(spec.get("class_path", ""))
        package = __name__.partition(".")[0]
        spec = pydoc.locate(path if "." in path else f"{package}.{path}")  # type: ignore[assignment]
    spec = spec.func if isinstance(spec, partial) else spec
    return issubclass(spec, base) if isinstance(spec, type) else isinstance(spec, base)


def with_arguments(spec: Spec, arguments: Mapping[str, Any]) -> Spec:
    """The same method with other arguments; those of an argument are named with a dot.

    Raises:
        ValueError: an argument is one of a class that the method does not name, or the method is
            made already.
    """
    nested = [path for path in arguments if "." in path]
    if isinstance(spec, Method):
        raise ValueError(f"{spec!r} is made already; give its class, or a functools.partial of it")
    if callable(spec):
        if nested:
            raise ValueError(
                f"{nested[0]} is an argument of an argument: name the method by its class_path and "
                "init_args for that"
            )
        return partial(spec, **arguments)
    made: dict[str, Any] = (
        {"class_path": spec} if isinstance(spec, str) else copy.deepcopy({**spec})
    )
    for path, value in arguments.items():
        *outer, last = path.split(".")
        inner = made
        for name in outer:
            inner = inner.setdefault("init_args", {}).setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{path} needs {name} with a class_path in the method")
        if inner.get("init_args") is None:
            inner["init_args"] = {}
        inner["init_args"][last] = value
    return made


def without_arguments(spec: Spec, names: Collection[str]) -> Spec:
    """The same method without some of the arguments that it is given."""
    if isinstance(spec, partial):
        kept = {name: value for name, value in spec.keywords.items() if name not in names}
        return partial(spec.func, *spec.args, **kept)
    if isinstance(spec, Mapping):
        arguments = dict(spec.get("init_args") or {})
        kept = {name: value for name, value in arguments.items() if name not in names}
        return {**spec, "init_args": kept}
    return spec


def make(spec: Spec, base: type, kind: str) -> Any:
    """The method itself; types are checked as in a run.

    Args:
        spec: what to make.
        base: the class that it has to be of.
        kind: which methods these are, for errors.

    Raises:
        ValueError: it cannot be made, or is something else.
    """
    if callable(spec):
        made = spec()
    elif not isinstance(spec, (str, Mapping)):
        made = spec
    else:
        made = _parsed({"class_path": spec} if isinstance(spec, str) else spec, base, kind)
    if not isinstance(made, base):
        raise ValueError(f"{label(spec)} is not one of the {kind}")
    return made


def _parsed(spec: Mapping[str, Any], base: type, kind: str) -> Any:
    import_public_names()
    parser = _Parser()
    parser.add_subclass_arguments(base, "method")
    parser.add_instantiator(construct, object)
    try:
        return parser.instantiate_classes(parser.parse_object({"method": dict(spec)})).method
    except Refused as refused:
        reason = " ".join(str(refused).split())
        if reason.startswith("method") and "Allowed:" in reason:  # the class itself
            reason = f"{reason} These are the {kind}."
        raise ValueError(reason) from refused.error
