"""One table, four ways to show it."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from lightning_prune.report.tables import (
    Column,
    Figure,
    Table,
    as_csv,
    as_html,
    as_markdown,
)
from lightning_prune.report.terminal import print_table

TABLE = Table(
    "Perplexity",
    ("method", Column("perplexity", "x dense"), "zeros"),
    [
        ("Wanda|2:4", Figure(12.3456, "12.35", "1.06x", best=True), Figure(0.5, "50.0%")),
        ("<b>[red]", Figure(None, "-"), "failed"),
    ],
    note="Lower is better.",
    code=True,
)


def printed(table: Table, width: int = 80) -> str:
    file = io.StringIO()
    print_table(table, Console(file=file, width=width))
    return file.getvalue()


STAGES = ("dense", "pruned", "recovered")


def stages(names: tuple[str, ...] = STAGES) -> Table:
    """Numbers that need 87 columns."""
    figures = (Figure(0.7, "100.00%", "+0.00"), Figure(1.0, "100.00%", "+0.00"))
    rows = [(name, *figures, *figures, *figures) for name in names]
    columns = [Column(f"accuracy {i}", "points") for i in range(6)]
    return Table("", ("stage", *columns), rows)


def test_a_table_of_few_rows_is_turned_where_that_makes_it_fit() -> None:
    """In place of breaking the names of its rows; with room it stands as it is."""
    lines = printed(stages()).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["stage", *STAGES]
    assert lines[3].split()[:4] == ["accuracy", "0", "(points)", "100.00%"]
    assert printed(stages(), 120).splitlines()[1].split()[0] == "accuracy"


def test_no_name_is_broken_where_nothing_fits() -> None:
    """Lines are longer than the terminal is wide, then."""
    text = printed(stages(STAGES * 4))
    assert all(name in text for name in STAGES)
    assert max(map(len, text.splitlines())) > 80


def test_the_same_rows_stand_everywhere() -> None:
    """On the terminal and in HTML with their relations apart, in Markdown in brackets."""
    lines = [" ".join(line.split()) for line in printed(TABLE).splitlines()]
    assert "Wanda|2:4 12.35 1.06x 50.0%" in lines
    assert "<b>[red] - failed" in lines
    assert "method (x dense) zeros" in lines
    markdown = as_markdown(TABLE).splitlines()
    assert markdown[0] == "| method | perplexity (x dense) | zeros |"
    assert markdown[1] == "| --- | ---: | ---: |"
    assert markdown[2] == "| `Wanda\\|2:4` | **12.35 (1.06x)** | 50.0% |"
    assert markdown[-1] == "Lower is better."
    html = as_html(TABLE)
    assert '<td class="n"><b>12.35</b> <small>1.06×</small></td>' in html
    assert "&lt;b&gt;[red]" in html
    assert '<p class="note">Lower is better.</p>' in html


def test_csv_has_figures_as_measured() -> None:
    """Whole; what was not measured is empty."""
    rows = list(csv.reader(io.StringIO(as_csv(TABLE))))
    assert rows == [
        ["method", "perplexity", "zeros"],
        ["Wanda|2:4", "12.3456", "0.5"],
        ["<b>[red]", "", "failed"],
    ]


def test_figures_stand_below_each_other() -> None:
    """With a relation or without."""
    lines = printed(TABLE).splitlines()
    [first], [second] = ([line for line in lines if name in line] for name in ("Wanda", "red"))
    assert first.index("12.35") + len("12.35") == second.index(" - ") + 2


@pytest.mark.parametrize("width", [30, 40, 80])
def test_nothing_is_cut_off(width: int) -> None:
    """Words are folded; columns that have no room stand below each other."""
    models = ("SmolLM2-135M-Instruct", "another-model", "a third one")
    rows = [(f"wikitext{i}", *(Figure(v, f"{v:.2f}") for v in (10 + i, 20 + i, 30 + i)))
            for i in range(2)]  # fmt: skip
    text = printed(Table("", ("text", *models), rows, compared=3), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    for value in (10, 11, 20, 21, 30, 31):
        assert f"{value}.00" in text


def test_many_numbers_are_shown_whole_in_longer_lines() -> None:
    """More than the terminal has room for; a part of a number would be another number."""
    numbers = [Figure(v, str(v)) for v in range(100_000, 100_012)]
    header = (Column("name", words=True), *(f"n{i}" for i in range(12)))
    text = printed(Table("", header, [("model.layers.0.mlp", *numbers)] * 5), 80)
    (line, *_) = (line for line in text.splitlines() if "100000" in line)
    assert line.split() == ["model.layers.0.mlp", *map(str, range(100_000, 100_012))]


def test_words_may_stand_on_the_right() -> None:
    """Of an error, say."""
    table = Table("", ("trial", "value", Column("error", words=True)), [("1", "2", "no room")])
    assert as_markdown(table).splitlines()[1] == "| --- | ---: | --- |"
    assert "<td>no room</td>" in as_html(table)
