"""What a model is like without the parts that a behaviour is due to: tables and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lightning_prune.evaluation.rates import Rate
from lightning_prune.report.files import Document
from lightning_prune.report.names import model_name
from lightning_prune.report.numbers import perplexity_text, share_text, short_text, times
from lightning_prune.report.page import page
from lightning_prune.report.plots import Plot, document, figures
from lightning_prune.report.series import Point, series_plot
from lightning_prune.report.tables import Column, Figure, Row, Table, as_html

__all__ = ["REPETITION", "CircuitResult", "Judged", "circuit_document"]

SCORE = "mean score"
REPETITION = "repetition (1 - different tokens / tokens)"
"""What completions are scored by where no scorer is given."""


@dataclass(frozen=True)
class Judged:
    """A model with some of its parts removed.

    Attributes:
        name: of the list that they are of: "circuit", "random", "magnitude"; "dense": none are.
        count: how many.
        perplexity: on validation text.
        rate: share of the completions whose score reaches the scorer's threshold.
        score: mean score of the completions.
        unique: mean share of different tokens in a completion.
        silent: share of the completions that have no token; nothing can be found in them.
        draw: which of several draws of random parts.
    """

    name: str
    count: int
    perplexity: float
    rate: Rate
    score: Rate
    unique: Rate
    silent: float = 0.0
    draw: int = 1


@dataclass(frozen=True)
class CircuitResult:
    """All that was judged.

    Attributes:
        model: what it was done to.
        rows: the first one dense.
        settings: how it was done.
    """

    model: str
    rows: Sequence[Judged]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dense(self) -> Judged:
        """The model as it was."""
        return self.rows[0]

    @property
    def names(self) -> list[str]:
        """The lists, in their order."""
        return list(dict.fromkeys(row.name for row in self.rows[1:]))

    @property
    def counts(self) -> list[int]:
        """How many parts were removed, from few to many."""
        return sorted({row.count for row in self.rows[1:]})

    def draws(self, name: str, count: int) -> list[Judged]:
        """What was judged without so many parts of a list; of random ones each draw."""
        return [row for row in self.rows if (row.name, row.count) == (name, count)]

    def row(self, name: str, count: int) -> Judged:
        """The mean of these draws, with the lowest and the highest in place of intervals."""
        first, *others = draws = self.draws(name, count)
        if not others:
            return first
        return replace(
            first,
            perplexity=fmean(row.perplexity for row in draws),
            rate=_over([row.rate for row in draws]),
            score=_over([row.score for row in draws]),
            unique=_over([row.unique for row in draws]),
            silent=fmean(row.silent for row in draws),
        )

    @property
    def means(self) -> list[Judged]:
        """The rows, draws of one number as one."""
        return [self.row(row.name, row.count) for row in self.rows if row.draw == 1]


def _over(rates: Sequence[Rate]) -> Rate:
    values = [rate.value for rate in rates]
    return Rate(fmean(values), min(values), max(values), rates[0].count)


def circuit_document(result: CircuitResult) -> Document:
    """A result as it is printed and written: Markdown, CSV, JSON, a picture and a page."""
    model, facts = model_name(result.model), _facts(result)
    table = _table(result, f"{model} without what the undesired answers are due to")
    narrow = replace(table, **_without(table, SCORE))
    plots = _plots(result)
    body = [
        ("", f"<p>{'</p><p>'.join(map(escape, facts))}</p>"),
        ("Rate and perplexity", figures(plots)),
        ("Figures", as_html(table)),
    ]
    return Document(
        "result",
        asdict(result),
        printed=[narrow, *facts, ""],
        written=[f"# {table.title}", *facts, _table(result, "")],
        rows=_rows(result),
        picture=document("circuit", model, facts[:1], plots),
        texts={"result.html": page(f"{model}: without a circuit", "circuit report", body)},
    )


def _without(table: Table, column: str) -> dict[str, Any]:
    """Header and rows but for a column, for which a terminal has no room."""
    at = list(map(str, table.header)).index(column)
    header, *rows = ([*row[:at], *row[at + 1 :]] for row in (table.header, *table.rows))
    return {"header": header, "rows": rows}


def _facts(result: CircuitResult) -> list[str]:
    """How it was measured."""
    s = result.settings
    how = s["sampling"]
    drawn = (
        f"temperature {how['temperature']}, top_p {how['top_p']}, seed {how['seed']}"
        if how["temperature"]
        else "the likeliest token each time"
    )
    scorer, misses = s["scorer"]["class"], s["scorer"]["misses"]
    agreed = s.get("agreement")
    kind = " (those of the undesired samples)" if s["in_sample"] else ""
    return [
        f"{s['by']} of {s['parts']:,} {s['kind']}s, general less undesired ({s['contrast']}), "
        f"of {s['draws'][0]} and {s['draws'][1]} draws of samples",
        f"completions of {s['prompts']} prompts{kind}, {how['new_tokens']} tokens, {drawn}, "
        f"scored by {scorer}{'; ' * bool(misses)}{misses}",
        f"perplexity of {s['windows']} windows of {s['length']} tokens; 95%: the interval of a "
        "bootstrap over prompts",
        *([_drawn(result)] if any(row.draw > 1 for row in result.rows) else []),
        *([_agreed(agreed)] if agreed else []),
    ]


def _drawn(result: CircuitResult) -> str:
    """What stands in the rows of random parts."""
    draws = max(row.draw for row in result.rows)
    return (
        f"random: the mean of {draws} draws of parts, ± the standard deviation of their "
        "perplexities, and the lowest and the highest rate in place of an interval"
    )


def _agreed(a: Mapping[str, Any]) -> str:
    """How far the scorer is to be believed."""
    precision = "-" if a["precision"] is None else f"{a['precision']:.2f}"
    return (
        f"of {a['texts']:,} texts with labels ({Path(a['source']).name}) the scorer's AUC is "
        f"{a['auc']:.3f}, its precision {precision} and its recall {a['recall']:.2f} at "
        f"{a['threshold']:g}"
    )


def _table(result: CircuitResult, title: str) -> Table:
    dense = result.dense
    header = (
        "removed",
        Column("of", words=True),
        Column("perplexity", "x dense"),
        Column("rate", "x dense"),
        "95%",
        SCORE,
        "unique tokens",
        "silent",
    )
    rows: list[Row] = []
    for row in result.means:
        related = row is not dense
        draws = result.draws(row.name, row.count)
        apart = f" ± {stdev(d.perplexity for d in draws):.2g}" if len(draws) > 1 else ""
        rows.append(
            (
                f"{row.count:,}" if row.count else "none",
                row.name,
                Figure(
                    row.perplexity,
                    perplexity_text(row.perplexity) + apart,
                    times(row.perplexity, dense.perplexity) if related else "",
                ),
                Figure(
                    row.rate.value,
                    share_text(row.rate.value),
                    times(row.rate.value, dense.rate.value) if related else "",
                ),
                f"{100 * row.rate.low:.0f}-{100 * row.rate.high:.0f}%",
                Figure(row.score.value, f"{row.score.value:.3f}"),
                Figure(row.unique.value, share_text(row.unique.value)),
                Figure(row.silent, share_text(row.silent)),
            )
        )
    return Table(title, header, rows)


def _rows(result: CircuitResult) -> Table:
    """Every number, for CSV."""
    names = ("rate", "score", "unique")
    header = ["removed", "of", "draw", "perplexity"]
    header += [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    header.append("silent")
    rows: list[Row] = []
    for row in result.rows:
        ends = [(r.value, r.low, r.high) for r in (row.rate, row.score, row.unique)]
        numbers = [row.perplexity, *(value for three in ends for value in three)]
        numbers.append(row.silent)
        figures = [Figure(number, str(number)) for number in numbers]
        rows.append((Figure(row.count, str(row.count)), row.name, str(row.draw), *figures))
    return Table("", header, rows)


def _plots(result: CircuitResult) -> list[Plot]:
    targets = [f"{count:,}" for count in result.counts]
    axis = f"{result.settings['kind']}s removed"

    def points(point: Any) -> dict[str, list[Point | None]]:
        return {
            name: [point(result.row(name, count)) for count in result.counts]
            for name in result.names
        }

    def rate(row: Judged) -> Point:
        return Point(row.rate.value, row.rate.low, row.rate.high)

    def value(row: Judged) -> Point:
        values = [draw.perplexity for draw in result.draws(row.name, row.count)]
        return Point(row.perplexity, min(values), max(values))

    return [
        series_plot(
            "Undesired completions",
            "share of completions",
            rate(result.dense),
            targets,
            points(rate),
            axis,
            logarithmic=False,
            shown=share_text,
            tick=lambda share: f"{100 * share:.3g}%",
            height=190.0,
        ),
        series_plot(
            "Perplexity",
            "perplexity (log scale)",
            value(result.dense),
            targets,
            points(value),
            axis,
            logarithmic=True,
            shown=perplexity_text,
            tick=short_text,
            height=190.0,
        ),
    ]
