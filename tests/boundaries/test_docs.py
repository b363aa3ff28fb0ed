"""Pages that are made from the code say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_methods_is_up_to_date() -> None:
    """`python docs/generate.py` was run after the last change of a docstring."""
    if not (DOCS / "generate.py").is_file():
        pytest.skip("no docs beside the tests")
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == module.page()
