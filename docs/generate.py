"""Write docs/methods.md from the docstrings: `python docs/generate.py`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from lightning_prune import allocation, callbacks
from lightning_prune.allocation import Allocation
from lightning_prune.methods.base import Method

PAGE = Path(__file__).parent / "methods.md"
FAMILIES = (
    ("Methods that set weights to zero", callbacks.WeightPruning),
    ("Methods that cut units off", callbacks.UnitPruning),
    ("Sharing the budget", Allocation),
)


def page() -> str:
    """The page: every public method and allocation, with its source and its arguments."""
    parts = [
        "# Methods\n\nMade from the docstrings by `python docs/generate.py`. Which one to take: "
        "[weights.md](weights.md).\n"
    ]
    for title, family in FAMILIES:
        room = allocation if family is Allocation else callbacks
        classes = [getattr(room, name) for name in room.__all__]
        classes = [c for c in classes if inspect.isclass(c) and issubclass(c, family)]
        parts.append(f"## {title}\n")
        if issubclass(family, Method):
            parts.append(f"All of them also take:\n\n{arguments(family)}\n")
        for cls in classes:
            if not inspect.isabstract(cls):
                parts.append(f"### {cls.__name__}\n\n{described(cls)}")
    return "\n".join(parts)


def described(cls: type) -> str:
    """What a class's module and docstring say."""
    module = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
    text = re.sub(r"\n*Axes:.*\Z", "", module, flags=re.S)
    about = inspect.cleandoc(cls.__doc__ or "")
    head, _, _ = about.partition("\nArgs:")
    return f"{text}\n\n{head.strip()}\n\n{arguments(cls)}\n"


def arguments(cls: type) -> str:
    """The arguments of a class, as a list."""
    about = inspect.cleandoc(cls.__doc__ or "")
    match = re.search(r"\nArgs:\n(.*?)(?=\n\S|\Z)", about, flags=re.S)
    if match is None:
        return ""
    items = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", match[1], flags=re.M | re.S)
    return "\n".join(
        f"- `{name}`: {' '.join(text.split())}" for name, text in items if name != "settings"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
