"""The examples of a page of the documentation, as a reader runs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_page(page: str, **given: Any) -> dict[str, Any]:
    """Run the Python blocks of a page in their order, in one namespace; return what they define.

    Args:
        page: path of the page from the root of the project.
        given: what the page takes for granted, such as a model.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no Python"
    names: dict[str, Any] = {"__name__": __name__, **given}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names
