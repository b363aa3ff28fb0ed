"""The sections of the report's page, one function each; what was not measured gives no section."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightning_prune.report.charts import Curve, curves
from lightning_prune.report.evaluation import ZEROS, perplexity_table, speed_table, task_table
from lightning_prune.report.measures import ACCURACY, PERPLEXITY
from lightning_prune.report.names import without_places
from lightning_prune.report.numbers import (
    count_text,
    duration_text,
    moment_text,
    rate_text,
    roughly,
    size_text,
    unique_text,
)
from lightning_prune.report.plots import figures
from lightning_prune.report.report import Report
from lightning_prune.report.stages import stage_table, windows_words
from lightning_prune.report.structure import (
    gone_words,
    importance_plots,
    structure_plots,
    whole_words,
)
from lightning_prune.report.tables import Figure, Table, as_html

__all__ = [
    "asked",
    "blocks",
    "evaluation",
    "files",
    "head",
    "headline",
    "provenance",
    "recovery",
    "sayings",
    "seconds",
    "settings",
    "speed",
    "stages",
]


def head(report: Report) -> str:
    """Model, method, when and on what."""
    facts = [
        moment_text(report.created),
        report.settings.get("device"),
        report.settings.get("dtype"),
    ]
    line = " · ".join(escape(str(fact)) for fact in facts if fact)
    method = escape(without_places(report.method))
    return (
        f'<header><p class="kicker">Pruning report</p><h1>{escape(report.model)}</h1>'
        f'<p><code>{method}</code></p><p class="meta">{line}</p></header>'
    )


def headline(report: Report) -> str:
    """The last stage against the first: four figures."""
    if len(report.stages) < 2:
        return ""
    (_, dense), *_, (name, last) = report.stages.items()
    masked = last.only_masked(dense)
    tiles = [
        ("parameters", _change(last.parameters, dense.parameters),
         f"{count_text(dense.parameters)} → {count_text(last.parameters)}"),
        ("size", _change(last.bytes, dense.bytes),
         f"{size_text(dense.bytes)} → {size_text(last.bytes)}"),
    ]  # fmt: skip
    if masked:
        tiles[0] = ("zeros", f"{last.zeros:.1%}", f"of {count_text(last.parameters)} parameters")
    for measure in (PERPLEXITY, ACCURACY):
        before, now = measure.of(dense), measure.of(last)
        if before is not None and now is not None:
            detail = f"{measure.text(before)} → {measure.text(now)}"
            change = measure.relation(now, before).replace("x", "×") or measure.text(now)
            words = f"{change} points" if measure is ACCURACY else change
            tiles.append((measure.name, words, detail))
    if not last.same_work(dense):  # else what differs is the noise of the machine
        tiles += _speed_tile(report, name)
    body = "".join(
        f'<div class="tile"><div class="name">{escape(title)}</div><div class="figure">'
        f'{escape(figure)}</div><div class="detail">{escape(detail)}</div></div>'
        for title, figure, detail in tiles
    )
    note = f'<p class="note">{escape(ZEROS)}</p>' if masked else ""
    return f'<div class="tiles">{body}</div>{note}'


def stages(report: Report) -> str:
    """A row for each stage."""
    words = windows_words(report).replace("windows", "validation windows")
    if report.settings.get("unit") == "images":
        note = f"Accuracy is of {words.replace('images', 'validation images')}." if words else ""
    else:
        note = f"Perplexity is of {words}." if words else ""
    table = stage_table(report, counted=lambda count: f"{count:,}")
    return as_html(replace(table, title="", note=note))


def asked(report: Report) -> str:
    """What each method was asked for, and what it came to."""
    rows = [(one.method, _unbroken(one.asked), one.done) for one in report.asked]
    return as_html(Table("", ("method", "asked", "done"), rows, words=3)) if rows else ""


def evaluation(report: Report) -> str:
    """Perplexity of other texts, and tasks."""
    tables = (perplexity_table(report.evaluations), task_table(report.evaluations))
    return "".join(f"<h3>{escape(t.title)}</h3>{as_html(t)}" for t in tables if t is not None)


def blocks(report: Report) -> str:
    """Heads, widths, zeros and importance, block by block; what is as it was, in words."""
    shapes = report.blocks
    if not shapes:
        return ""
    heads, neurons, *zeros = structure_plots(shapes)
    cut = any(shape.is_cut for shape in shapes)
    plots = [*([heads, neurons] if cut else []), *zeros, *importance_plots(report)]
    words = gone_words(shapes) if cut else whole_words(shapes)
    return (f"<p>{escape(words)}</p>" if words else "") + figures(plots)


def recovery(report: Report) -> str:
    """Loss, and perplexity or accuracy, while the model was trained."""
    loss = report.curves.get("train_loss", [])
    measure = ACCURACY if report.settings.get("unit") == "images" else PERPLEXITY
    judged = report.curves.get(f"val_{measure.name}", [])
    each = "an image" if measure is ACCURACY else "a token"
    smooth = _smoothed(loss)
    lines = [Curve("loss", loss, "blue", opacity=0.35 if smooth else 1.0)]
    lines += [Curve("loss, smoothed", smooth, "blue")] if smooth else []
    measured = {name: measure.of(stage) for name, stage in report.stages.items()}
    levels = {n: v for n, v in measured.items() if n in ("dense", "pruned") and v is not None}
    plots = [
        curves(f"Training loss, nats {each}", "training loss over steps", lines)
        if len(loss) > 1
        else None,
        curves(
            f"Validation {measure.name}",
            f"{measure.name} over steps",
            [Curve(measure.name, judged, "green")],
            levels=levels,
        ),
    ]
    return figures([plot for plot in plots if plot is not None])


def sayings(report: Report) -> str:
    """For each prompt, how each stage's model goes on, side by side."""
    prompts = dict.fromkeys(a.prompt for e in report.evaluations.values() for a in e.answers)
    parts = []
    for prompt in prompts:
        answers = {
            stage: next((a for a in e.answers if a.prompt == prompt), None)
            for stage, e in report.evaluations.items()
        }
        cards = "".join(
            f'<div class="saying"><div class="name">{escape(stage)} · {unique_text(answer.unique)}'
            f'</div><div class="text">{escape(answer.text)}</div></div>'
            for stage, answer in answers.items()
            if answer is not None
        )
        parts.append(
            f'<div class="saying prompt"><div class="name">prompt</div><div class="text">'
            f'{escape(prompt)}</div></div><div class="sayings">{cards}</div>'
        )
    note = (
        '<p class="note">The likeliest token each time. Unique: different tokens over tokens.</p>'
    )
    return "".join(parts) + note if parts else ""


def speed(report: Report) -> str:
    """Prefill, decode and memory of each stage."""
    works = {name: (stage.parameters, stage.bytes) for name, stage in report.stages.items()}
    table = speed_table(report.evaluations, works)
    return as_html(table) if table is not None else ""


def seconds(report: Report) -> str:
    """How long each part of the run took."""
    total = sum(report.seconds.values())
    rows = [
        (name, Figure(value, duration_text(value)), f"{value / (total or 1):.0%}")
        for name, value in report.seconds.items()
    ]
    return as_html(Table("", ("part of the run", "time", "share"), rows)) if rows else ""


def settings(report: Report) -> str:
    """What the run was made with."""
    tables = {"measured": report.settings, **report.configuration}
    parts = [
        f"<div><h3>{escape(name)}</h3>{_pairs(table)}</div>"
        for name, table in tables.items()
        if table
    ]
    return f'<div class="settings">{"".join(parts)}</div>' if parts else ""


def provenance(report: Report) -> str:
    """Where everything comes from: versions, hashes, seeds."""
    return _pairs({**report.provenance, **report.versions})


def files(report: Report, folder: Path) -> str:
    """Links to what the run wrote, from the folder in which the page lies."""
    items = []
    for name, path in report.files.items():
        try:
            relative = Path(os.path.relpath(path, folder)).as_posix()
        except ValueError:  # another drive
            continue
        items.append(
            f'<dt>{escape(name)}</dt><dd><a href="{quote(relative)}">{escape(relative)}</a></dd>'
        )
    return f"<dl>{''.join(items)}</dl>" if items else ""


# --- parts ---


def _smoothed(line: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean of the points around each; of short lines nothing."""
    reach = len(line) // 16
    if reach == 0:
        return []
    around = [line[max(0, i - reach) : i + reach + 1] for i in range(len(line))]
    return [(line[i][0], sum(y for _, y in part) / len(part)) for i, part in enumerate(around)]


def _speed_tile(report: Report, last: str) -> list[tuple[str, str, str]]:
    """Decoding where it was measured, else the forward pass."""
    evaluations = [report.evaluations.get(name) for name in ("dense", last)]
    decode = [e.speeds[0].decode_tokens_per_second if e and e.speeds else None for e in evaluations]
    forward = [
        report.stages[name].tokens_per_second if name in report.stages else None
        for name in ("dense", last)
    ]
    for name, (before, now) in (("decode speed", decode), ("forward speed", forward)):
        if before and now:
            figure = roughly(now, before).replace("x", "×")
            unit = report.settings.get("unit", "tokens")
            return [(name, figure, f"{rate_text(before)} → {rate_text(now)} {unit}/s")]
    return []


def _unbroken(pairs: str) -> str:
    """Names with their values, each in one piece: lines are broken between them only."""
    return ", ".join(pair.replace(" ", "\u00a0") for pair in pairs.split(", "))


def _change(now: int, before: int) -> str:
    if now == before:
        return "unchanged"
    return f"{now / max(before, 1) - 1:+.1%}".replace("-", "−")


def _pairs(values: Mapping[str, Any]) -> str:
    """Names and values below each other; values in values by their path."""
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(text)}</dd>" for name, text in _flat(values)
    )
    return f"<dl>{items}</dl>" if items else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of what is given, without places on a disk; what is empty is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in (None, ""):
            yield f"{prefix}{name}", without_places(str(value))
