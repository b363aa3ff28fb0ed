"""Write docs/methods.md from the docstrings: `python docs/generate.py`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import lightning_prune
from lightning_prune.allocation import Allocation
from lightning_prune.methods.base import Method
from lightning_prune.methods.blocks import BlockPruning
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.repair import Repair

PAGE = Path(__file__).parent / "methods.md"
FAMILIES = (
    ("Methods that set weights to zero", WeightPruning),
    ("Methods that cut units off", UnitPruning),
    ("Methods that take blocks out", BlockPruning),
    ("A method in rounds", lightning_prune.Progressive),
    ("Sharing the budget", Allocation),
    ("Repairing what reads removed units", Repair),
)


def page() -> str:
    """The page: every public method, allocation and repair, with its source and its arguments."""
    parts = [
        "# Methods\n\nMade from the docstrings by `python docs/generate.py`. Which one to take: "
        f"[weights.md](weights.md).\n\nAll methods also take:\n\n{arguments(Method)}\n"
    ]
    for title, family in FAMILIES:
        parts.append(f"## {title}\n")
        if family not in members(family):
            shared = arguments(family)
            parts += [f"All of them also take:\n\n{shared}\n"] if shared else []
        parts += [f"### {cls.__name__}\n\n{described(cls)}" for cls in members(family)]
    return "\n".join(parts)


def members(family: type) -> list[type]:
    """The public classes of a family, by name."""
    public = [getattr(lightning_prune, name) for name in sorted(lightning_prune.__all__)]
    return [cls for cls in public if inspect.isclass(cls) and issubclass(cls, family)]


def described(cls: type) -> str:
    """What a class's module and docstring say."""
    module = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
    text = re.sub(r"\n*Axes:.*\Z", "", module, flags=re.S)
    about = inspect.cleandoc(cls.__doc__ or "")
    head, _, _ = about.partition("\nArgs:")
    return "\n\n".join(filter(None, [text, head.strip(), arguments(cls)])) + "\n"


def arguments(cls: type) -> str:
    """The arguments of a class that its own docstring names, as a list."""
    about = inspect.cleandoc(cls.__doc__ or "")
    match = re.search(r"\nArgs:\n(.*?)(?=\n\S|\Z)", about, flags=re.S)
    if match is None:
        return ""
    items = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", match[1], flags=re.M | re.S)
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in items)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
