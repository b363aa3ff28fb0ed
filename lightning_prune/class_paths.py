"""Why a class path, such as `my_module.MyMethod`, names no class, and which one may be meant."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from inspect import isclass
from types import ModuleType

from lightning_prune.checks import nearest

__all__ = ["wrong_class_path"]


def wrong_class_path(path: str) -> str | None:
    """What is wrong with a class path, in one sentence or two; None if it names a class.

    Args:
        path: a module and a class in it, with dots between.
    """
    module_path, _, name = path.rpartition(".")
    if not module_path:
        return None
    known = ""
    module: ModuleType | None = None
    for part in module_path.split("."):
        wanted = f"{known}.{part}" if known else part
        try:
            module = import_module(wanted)
        except Exception as error:  # whatever a module of the user's raises
            if isinstance(error, ModuleNotFoundError) and error.name == wanted:
                return _no_module(wanted, known, module)
            reason = " ".join(str(error).split())
            return f"the module {wanted} cannot be imported: {type(error).__name__}: {reason}"
        known = wanted
    value = getattr(module, name, None)
    if isclass(value):
        return None
    guess = nearest(name, [other for other in dir(module) if isclass(getattr(module, other, None))])
    meant = f" Did you mean {module_path}.{guess}?" if guess else ""
    if value is not None:
        return f"{name} in the module {module_path} is no class.{meant}"
    return f"the module {module_path} has no class {name}.{meant}"


def _no_module(wanted: str, known: str, parent: ModuleType | None) -> str:
    """That there is no module, with the nearest of those that stand beside it."""
    beside = pkgutil.iter_modules(None if parent is None else getattr(parent, "__path__", []))
    part = wanted.removeprefix(f"{known}.")
    guess = nearest(part, [module.name for module in beside])
    if guess:
        meant = f" Did you mean {f'{known}.{guess}' if known else guess}?"
    else:
        meant = " Is its folder in PYTHONPATH?" if parent is None else ""
    return f"there is no module {wanted}.{meant}"
