"""Tables: one value that is shown on a terminal, as Markdown, in HTML and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = [
    "Cell",
    "Column",
    "Figure",
    "Row",
    "Table",
    "as_csv",
    "as_html",
    "as_markdown",
    "full_name",
    "is_related",
]


@dataclass(frozen=True)
class Figure:
    """A number, and how it is shown.

    Attributes:
        value: as measured; None: it was not.
        text: with few digits.
        relation: to the figure that it is compared with, such as "1.06x".
        best: whether it is the best of its column.
    """

    value: float | int | None
    text: str
    relation: str = ""
    best: bool = False

    def __str__(self) -> str:
        """The text of the cell, with how it compares to its reference."""
        return f"{self.text} ({self.relation})" if self.relation else self.text


Cell = str | Figure
Row = Sequence[Cell]


@dataclass(frozen=True)
class Column:
    """What stands in a column.

    Attributes:
        name: at its top.
        relation: what its figures' relations are, such as "x dense": said once, in the header.
        words: whether words stand in it, on the right of numbers.
    """

    name: str
    relation: str = ""
    words: bool = False

    def __str__(self) -> str:
        """The column's name, as the head of the table has it."""
        return self.name


@dataclass(frozen=True)
class Table:
    """Rows of words and figures.

    Attributes:
        title: what they are about.
        header: of the columns.
        rows: as long as the header.
        note: below them.
        words: how many columns on the left hold words; the others hold numbers, if not said.
        compared: so many columns, on the right, hold the same figure of one model each. Where a
            terminal is too narrow for them, the models stand below each other.
        of: what these columns are of, if not of models.
        total: whether the last row is what the others add up to.
        code: whether the first column is code, for Markdown.
    """

    title: str
    header: Sequence[str | Column]
    rows: Sequence[Row]
    note: str = ""
    words: int = 1
    compared: int = 0
    of: str = "model"
    total: bool = False
    code: bool = False

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The rows as they are shown."""
        return [tuple(map(str, row)) for row in self.rows]

    def has_words(self, column: int) -> bool:
        """Whether words stand in a column."""
        head = self.header[column]
        return column < self.words or (isinstance(head, Column) and head.words)


def as_markdown(table: Table) -> str:
    """A pipe table with the note below it; without the title."""
    names = [full_name(column) for column in table.header]
    rule = ["---" if table.has_words(i) else "---:" for i in range(len(names))]
    rows = [[_marked(cell) for cell in row] for row in table.rows]
    if table.code:
        rows = [[f"`{first}`", *others] for first, *others in rows]
    lines = [_pipes(names), _pipes(rule), *map(_pipes, rows)]
    return "\n".join([*lines, *(["", table.note] if table.note else [])])


def as_html(table: Table) -> str:
    """A table with the note below it, in a box that scrolls; all texts are escaped."""

    def cells(row: Iterable[str], tag: str) -> str:
        kinds = ["" if table.has_words(i) else ' class="n"' for i in range(len(table.header))]
        return "".join(
            f"<{tag}{kind}>{text}</{tag}>" for kind, text in zip(kinds, row, strict=True)
        )

    head = cells(map(_html_head, table.header), "th")
    rows = "".join(f"<tr>{cells(map(_html_cell, row), 'td')}</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{body}</div>{note}'


def as_csv(table: Table) -> str:
    """One line a row, figures as measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(str, table.header))
    for row in table.rows:
        values = [cell.value if isinstance(cell, Figure) else cell for cell in row]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def full_name(column: str | Column) -> str:
    """Of a column, with what the relations of its figures are."""
    related = isinstance(column, Column) and column.relation
    return f"{column} ({related})" if related else str(column)


def is_related(column: str | Column) -> bool:
    """Whether its figures are followed by their relation to others."""
    return isinstance(column, Column) and bool(column.relation)


# --- parts ---


def _marked(cell: Cell) -> str:
    return f"**{cell}**" if isinstance(cell, Figure) and cell.best else str(cell)


def _pipes(cells: Iterable[str]) -> str:
    safe = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(safe)} |"


def _html_head(column: str | Column) -> str:
    below = f"<small>{_sign(column.relation)}</small>" if isinstance(column, Column) else ""
    return escape(str(column)) + (f" {below}" if below else "")


def _html_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    shown = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    return f"{shown} <small>{_sign(cell.relation)}</small>" if cell.relation else shown


def _sign(relation: str) -> str:
    """With a sign for "times" that is none of letters."""
    return escape(relation.replace("x", "\u00d7"))
