"""The models that come with the package, which are known by a name."""

from __future__ import annotations

from pathlib import Path

from lightning_prune.checks import meant

__all__ = ["QUICKSTART", "bundled_model", "meant_model"]

QUICKSTART = "quickstart"
"""A small Llama."""
NAMES = (QUICKSTART,)


def bundled_model(name: str | Path) -> Path | None:
    """The folder of the model of a name; None of another name, or of a path."""
    return Path(__file__).resolve().parents[1] / name if name in NAMES else None


def meant_model(path: str) -> str:
    """The question whether one of these was meant by what is no model; "" where none is near."""
    return "" if "/" in path else meant(path, NAMES)
