"""Packages that only analysis needs: they are asked for before the work begins."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["check_extra"]

PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def check_extra(what: str, *modules: str) -> None:
    """Refuse what needs a package that is not there; none is imported yet.

    Raises:
        ModuleNotFoundError: one is not installed; the message says how it is.
    """
    missing = [PACKAGES[module] for module in modules if find_spec(module) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{what} needs {' and '.join(missing)}: pip install 'lightning-prune[analysis]'"
        )
