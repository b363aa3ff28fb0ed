"""What commands print."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

__all__ = ["say"]


def say(line: str) -> None:
    """Print a line as it is, without breaking it."""
    Console().print(Text(line), soft_wrap=True)
