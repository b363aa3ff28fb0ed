"""The one door to test data that lies outside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("LIGHTNING_PRUNE_SHARED", Path(__file__).parents[1] / "../shared"))


def shared_path(name: str) -> Path:
    """A file or folder of the shared test data; skips the test where it is not there."""
    path = (ROOT / name).resolve()
    if not path.exists():
        pytest.skip(f"needs shared test data: {name} (set LIGHTNING_PRUNE_SHARED to its folder)")
    return path
