"""Tables on a terminal: what fits its width, and what becomes of what does not."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_prune.report.tables import Cell, Column, Figure, Row, Table, full_name, is_related

if TYPE_CHECKING:
    import rich.table
    from rich.console import Console
    from rich.text import Text

__all__ = ["print_table"]

UNLIMITED = 10_000
"""Characters; a terminal as wide as this breaks nothing."""

SHORT = 8
"""Characters of a name that is never folded."""


def print_table(table: Table, console: Console) -> None:
    """Print a table that fits the terminal: nothing is cut off, and only long words are broken.

    A table of few rows is turned where that makes it fit. Where there are too many numbers for all
    of this, lines are longer than the terminal is wide.
    """
    from rich.text import Text

    def least(table: Table) -> int:
        wide = console.options.update(width=UNLIMITED)
        return _for_terminal(table).__rich_measure__(console, wide).minimum

    if table.compared > 1 and least(table) > console.width:
        table = _below_each_other(table)
    if least(table) > console.width and least(turned := _turned(table)) <= console.width:
        table = turned
    made = _for_terminal(table)
    if least(_shortened(table)) > console.width:  # rich would cut numbers off
        made.width = least(table)
    if table.title:
        console.print(Text(table.title, "bold"), soft_wrap=True)
    console.print(made, crop=False)
    if table.note:
        console.print(Text(table.note, "dim"), end="\n\n")


# --- parts ---


def _for_terminal(table: Table) -> rich.table.Table:
    import rich.table
    from rich import box

    made = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = [_lines(table, i) for i in range(len(table.header))]
    for i, (head, cells) in enumerate(columns):
        if table.has_words(i):
            made.add_column(head, overflow="fold")
        else:
            room = max(text.cell_len for line in (head, *cells) for text in line.split())
            made.add_column(head, no_wrap=True, min_width=room)
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
    return f"  {cell.relation}" if is_related(column) else f" ({cell.relation})"


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


def _turned(table: Table) -> Table:
    """The same with a row for each column of numbers; as it is where words stand beside these."""
    if table.words != 1 or table.total or any(map(table.has_words, range(1, len(table.header)))):
        return table
    header = (str(table.header[0]), *(str(row[0]) for row in table.rows))
    rows = [
        (full_name(name), *(row[i] for row in table.rows))
        for i, name in enumerate(table.header[1:], 1)
    ]
    return replace(table, header=header, rows=rows, compared=0)
