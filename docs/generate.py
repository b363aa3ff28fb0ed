"""Write docs/methods.md from the docstrings: `python docs/generate.py`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import lightning_prune
from lightning_prune.allocation import Allocation
from lightning_prune.data.references import References
from lightning_prune.evaluation.scorers.base import Scorer
from lightning_prune.methods.base import Method
from lightning_prune.methods.blocks import BlockPruning
from lightning_prune.methods.circuits import CircuitPruning
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.repair import BlockFit, Repair

PAGE = Path(__file__).parent / "methods.md"
FAMILIES = (
    ("Methods that set weights to zero", WeightPruning),
    ("Methods that cut units off", UnitPruning),
    ("Methods that take blocks out", BlockPruning),
    ("A method in rounds", lightning_prune.Progressive),
    ("What a behaviour is due to", CircuitPruning),
    ("Sharing the budget", Allocation),
    ("Repairing what reads removed units", Repair),
    ("Training what is left of the blocks", BlockFit),
    ("Reference sets", References),
    ("Scorers of texts", Scorer),
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
            common = arguments(family)
            parts += [f"All of them also take:\n\n{common}\n"] if common else []
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
    return "\n\n".join(filter(None, [text, head.strip(), arguments(cls, *shared(cls))])) + "\n"


def shared(cls: type) -> list[type]:
    """The bases whose arguments a class has, without those that a whole family has."""
    families = {base for _, family in FAMILIES for base in family.__mro__}
    return [base for base in cls.__mro__[1:] if base not in families]


def arguments(*classes: type) -> str:
    """The arguments that the docstrings of classes name, each once, as a list."""
    found: dict[str, str] = {}
    for cls in classes:
        about = inspect.cleandoc(cls.__doc__ or "")
        match = re.search(r"\nArgs:\n(.*?)(?=\n\S|\Z)", about, flags=re.S)
        listed = match[1] if match else ""
        items = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", listed, flags=re.M | re.S)
        for name, text in items:
            found.setdefault(name, " ".join(text.split()))
    return "\n".join(f"- `{name}`: {text}" for name, text in found.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
