"""Tables: one value that is shown on a terminal, as Markdown, in HTML and as CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.table
    from rich.console import Console
    from rich.text import Text

__all__ = [
    "Cell",
    "Column",
    "Figure",
    "Row",
    "Table",
    "as_csv",
    "as_html",
    "as_markdown",
    "print_table",
]

UNLIMITED = 10_000
"""Characters; a terminal as wide as this breaks nothing."""

SHORT = 8
"""Characters of a name that is never folded."""


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


def print_table(table: Table, console: Console) -> None:
    """Print a table that fits the terminal: words are folded, and nothing is cut off.

    Where there are too many numbers for that, lines are longer than the terminal is wide.
    """
    from rich.text import Text

    def least(table: Table) -> int:
        wide = console.options.update(width=UNLIMITED)
        return _for_terminal(table).__rich_measure__(console, wide).minimum

    if table.compared > 1 and least(table) > console.width:
        table = _below_each_other(table)
    made = _for_terminal(table)
    if least(_shortened(table)) > console.width:  # rich would cut numbers off
        made.width = least(table)
    if table.title:
        console.print(Text(table.title, "bold"), soft_wrap=True)
    console.print(made, crop=False)
    if table.note:
        console.print(Text(table.note, "dim"), end="\n\n")


def as_markdown(table: Table) -> str:
    """A pipe table with the note below it; without the title."""
    names = [f"{c.name} ({c.relation})" if _related(c) else str(c) for c in table.header]  # type: ignore[union-attr]
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


# --- parts ---


def _for_terminal(table: Table) -> rich.table.Table:
    import rich.table
    from rich import box

    made = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = [_lines(table, i) for i in range(len(table.header))]
    for i, (head, _) in enumerate(columns):
        made.add_column(head, no_wrap=not table.has_words(i), overflow="fold")
    for number in range(len(table.rows)):
        last = table.total and number == len(table.rows) - 1
        if last:
            made.add_section()
        made.add_row(*(cells[number] for _, cells in columns), style="bold" * last)
    return made


def _shortened(table: Table) -> Table:
    """The same with words as short as they are folded at most."""
    rows = [
        [str(cell)[:SHORT] if table.has_words(i) else cell for i, cell in enumerate(row)]
        for row in table.rows
    ]
    return replace(table, rows=rows)


def _lines(table: Table, i: int) -> tuple[Text, list[Text]]:
    """The head and the cells of a column; figures with room for their relations.

    Numbers are moved to the right by spaces, so that figures stand below each other.
    """
    from rich.cells import cell_len
    from rich.text import Text

    column = table.header[i]
    below = [f"({column.relation})"] if isinstance(column, Column) and column.relation else []
    relations = [_relation(row[i], column) for row in table.rows]
    room = max(map(len, relations), default=0)
    figures = [_figure(row[i]) for row in table.rows]
    texts = [figure.text for figure in figures]
    if table.has_words(i):
        return Text("\n".join([str(column), *below])), [Text(text) for text in texts]
    widest = max((cell_len(text) + room for text in texts), default=0)
    head = [*_folded(str(column), widest), *below]
    width = max([widest, *map(cell_len, head)])

    def pad(text: str, after: int = 0) -> str:
        return " " * (width - after - cell_len(text))

    cells = []
    for figure, relation in zip(figures, relations, strict=True):
        shown = (figure.text, "bold" * figure.best), (f"{relation:{room}}", "dim")
        cells.append(Text.assemble(pad(figure.text, room), *shown))
    return Text("\n".join(pad(line) + line for line in head)), cells


def _folded(name: str, width: int) -> list[str]:
    """A long name in two lines of whole words at most, about as wide as what stands below it."""
    widths = range(max(width * 3 // 2, SHORT), len(name) + 1)
    folds = (textwrap.wrap(name, wide, break_long_words=False) for wide in widths)
    return next((lines for lines in folds if len(lines) <= 2), [name])


def _figure(cell: Cell) -> Figure:
    return cell if isinstance(cell, Figure) else Figure(None, cell)


def _relation(cell: Cell, column: str | Column) -> str:
    if isinstance(cell, str) or not cell.relation:
        return ""
    return f"  {cell.relation}" if _related(column) else f" ({cell.relation})"


def _below_each_other(table: Table) -> Table:
    """The same with one row for each of what is compared, in place of one column."""
    keys = len(table.header) - table.compared
    rows: list[Row] = []
    for row in table.rows:
        for i, cell in enumerate(row[keys:]):
            before = row[:keys] if i == 0 else ("",) * keys
            words, numbers = before[: table.words], before[table.words :]
            rows.append((*words, str(table.header[keys + i]), *numbers, cell))
    header = (
        *table.header[: table.words],
        table.of,
        *table.header[table.words : keys],
        "",
    )
    return replace(table, header=header, rows=rows, words=table.words + 1, compared=0)


def _related(column: str | Column) -> bool:
    return isinstance(column, Column) and bool(column.relation)


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
