"""Results as they are printed, and as they are left in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.files import atomic_write
from lightning_prune.report.numbers import finite
from lightning_prune.report.tables import Table, as_csv, as_markdown
from lightning_prune.report.terminal import print_table

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Document", "as_json", "print_document", "print_files", "write"]


@dataclass(frozen=True)
class Document:
    """What is printed of a result, and written of it.

    Attributes:
        name: of its files.
        value: all of it, for JSON.
        printed: tables, and lines that are never broken, for a terminal.
        written: tables and paragraphs, for Markdown; empty: none is written.
        rows: the table for CSV; None: none is written.
        picture: SVG; empty: none is written.
        texts: other files, by name.
    """

    name: str
    value: Any
    printed: Sequence[Table | str] = ()
    written: Sequence[Table | str] = ()
    rows: Table | None = None
    picture: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)


def write(document: Document, folder: str | Path) -> dict[str, str]:
    """Leave a result in a folder, each file whole or not at all; returns their paths by name.

    Raises:
        OSError: the folder cannot be written.
    """
    texts = {
        "md": _markdown(document.written),
        "csv": as_csv(document.rows) if document.rows is not None else "",
        "json": as_json(document.value),
        "svg": document.picture,
    }
    files = {f"{document.name}.{kind}": text for kind, text in texts.items()} | {**document.texts}
    paths = {name: Path(folder) / name for name, text in files.items() if text}
    for name, path in paths.items():
        with atomic_write(path) as file:
            file.write(files[name])
    return {name: str(path) for name, path in paths.items()}


def show(document: Document, folder: str | Path | None) -> None:
    """Print a result, leave it in a folder if one is given, and print what was written.

    Args:
        document: the result.
        folder: for its files; None: it is printed alone.

    Raises:
        OSError: the folder cannot be written.
    """
    print_document(document)
    if folder is not None:
        print_files(write(document, folder))


def print_document(document: Document, console: Console | None = None) -> None:
    """Print a result's tables and lines."""
    console = console or _console()
    for part in document.printed:
        if isinstance(part, Table):
            print_table(part, console)
        else:
            console.print(part, soft_wrap=True, markup=False, highlight=False)


def print_files(files: Mapping[str, str], console: Console | None = None) -> None:
    """Print what was written, one file a line and never broken."""
    from rich.text import Text

    console = console or _console()
    width = max(map(len, files), default=0)
    for name, path in files.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def as_json(value: Any) -> str:
    """A value as JSON; infinite and undefined numbers become texts, as JSON has none."""
    plain = finite(value)
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _markdown(parts: Sequence[Table | str]) -> str:
    blocks = []
    for part in parts:
        if isinstance(part, Table):
            blocks += [f"## {part.title}"] if part.title else []
            blocks.append(as_markdown(part))
        else:
            blocks.append(part)
    return "\n\n".join(filter(None, blocks)) + "\n" if blocks else ""


def _console() -> Console:
    from rich.console import Console

    return Console()
