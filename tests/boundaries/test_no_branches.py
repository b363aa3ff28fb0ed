"""What goes into a model is a table's business: no other room asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_prune.anatomy import FAMILIES

PACKAGE = Path(__file__).parents[2] / "lightning_prune"
FREE = (
    "sweep",
    "selection",
    "surgery",
    "pipeline",
    "evidence",
    "scores",
    "repair",
    "allocation",
    "methods",
)
# Observers report what is measured, and what a validation batch is of.
FILES = sorted(
    path
    for room in (*FREE, "callbacks")
    for path in (PACKAGE / room).rglob("*.py")
    if "observers" not in path.parts
)
TYPES = sorted({name for family in FAMILIES for name in family.model_types} | {"gemma", "bert"})
NAMED = re.compile(rf"[\"'_]({'|'.join(TYPES)})\b", re.IGNORECASE)
VISION = re.compile(
    r"\bif\b.*(vision|image|pixel)|ImageTask|pixel_values|ImageClassif", re.IGNORECASE
)


def code_of(path: Path) -> str:
    """The file without comments and docstrings, where families are named as examples."""
    text = re.sub(r'"""(.|\n)*?"""', "", path.read_text(encoding="utf-8"))
    return "\n".join(
        line.partition("  # ")[0] for line in text.splitlines() if line.strip()[:1] != "#"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_family_is_named(path: Path) -> None:
    """By its type, or by what its models read."""
    found = [
        line for line in code_of(path).splitlines() if NAMED.search(line) or VISION.search(line)
    ]
    assert found == []


def test_the_patterns_find_what_they_look_for() -> None:
    """A branch of either kind would be seen."""
    assert NAMED.search('if config.model_type == "vit":')
    assert VISION.search("if is_vision(model):")
    assert len(FILES) > 80
