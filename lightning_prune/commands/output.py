"""What commands print."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

__all__ = ["print_files", "say"]


def print_files(files: Mapping[str, str]) -> None:
    """Print what was written, one file a line and never broken."""
    width = max(map(len, files), default=0)
    for name, path in files.items():
        Console().print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def say(line: str) -> None:
    """Print a line as it is, without breaking it."""
    Console().print(Text(line), soft_wrap=True)
