"""A table of texts that is shown in three ways: on the terminal, as Markdown, and in HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Sheet"]


@dataclass(frozen=True)
class Sheet:
    """A table: everything in it is text already.

    Attributes:
        title: what it is about.
        header: of the columns.
        rows: as long as the header.
        note: below it.
        left: how many columns hold words, on the left; the others hold numbers.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""
    left: int = 1

    def print(self, console: Console) -> None:
        """On the terminal, the note below the table, as wide as there is room."""
        table = Table(
            box=box.SIMPLE_HEAD,
            title=Text(self.title),
            title_style="bold",
            title_justify="left",
            pad_edge=False,
        )
        for i, name in enumerate(self.header):
            table.add_column(Text(name), justify="left" if i < self.left else "right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        if self.note:
            console.print(Text(self.note, "dim"), end="\n\n")

    def markdown(self) -> str:
        """A pipe table with the note below it; without the title."""
        rule = ["---" if i < self.left else "---:" for i in range(len(self.header))]
        lines = [_row(self.header), _row(rule), *map(_row, self.rows)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    def html(self) -> str:
        """A table with the note below it, in a box that scrolls; all texts are escaped."""
        body = "".join(f"<tr>{self._cells(row, 'td')}</tr>" for row in self.rows)
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        head = f"<thead><tr>{self._cells(self.header, 'th')}</tr></thead>"
        return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>{note}'

    def _cells(self, row: tuple[str, ...], tag: str) -> str:
        kinds = ["" if i < self.left else ' class="n"' for i in range(len(row))]
        pairs = zip(kinds, row, strict=True)
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in pairs)


def _row(cells: list[str] | tuple[str, ...]) -> str:
    safe = (" ".join(cell.split()).replace("|", "\\|") or " " for cell in cells)
    return f"| {' | '.join(safe)} |"
