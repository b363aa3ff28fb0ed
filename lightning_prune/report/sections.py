"""The sections of the report's page, one function each; what was not measured gives no section."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lightning_prune.report.evaluation import (
    ZEROS,
    perplexity_sheet,
    speed_sheet,
    task_sheet,
)
from lightning_prune.report.numbers import (
    count_text,
    perplexity_text,
    roughly,
    size_text,
    times,
    unique_text,
)
from lightning_prune.report.page_figures import bars_svg, heatmap_svg, lines_svg
from lightning_prune.report.page_parts import figure, pairs, smoothed
from lightning_prune.report.sheet import Sheet
from lightning_prune.tokens import begun

if TYPE_CHECKING:
    from lightning_prune.report.report import Report, StageMetrics

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
    "settings",
    "speed",
    "stages",
]


def head(report: Report) -> str:
    """Model, method, when and on what."""
    facts = [report.created, report.settings.get("device"), report.settings.get("dtype")]
    said = " · ".join(escape(str(fact)) for fact in facts if fact)
    return (
        f'<header><p class="kicker">Pruning report</p><h1>{escape(report.model)}</h1>'
        f'<p><code>{escape(report.method)}</code></p><p class="meta">{said}</p></header>'
    )


def headline(report: Report) -> str:
    """The last stage against the first: four figures."""
    if len(report.stages) < 2:
        return ""
    (_, dense), *_, (name, last) = report.stages.items()
    share = last.parameters / max(dense.parameters, 1)
    tiles = [
        ("parameters", f"{share - 1:+.1%}".replace("-", "−"), _from(dense, last, "parameters")),
        ("size", f"{last.bytes / max(dense.bytes, 1) - 1:+.1%}".replace("-", "−"),
         _from(dense, last, "bytes")),
    ]  # fmt: skip
    if _only_zeros(dense, last):
        tiles[0] = ("zeros", f"{_zeros(last):.1%}", f"of {count_text(last.parameters)} parameters")
    if dense.perplexity is not None and last.perplexity is not None:
        detail = f"{perplexity_text(dense.perplexity)} → {perplexity_text(last.perplexity)}"
        tiles.append(("perplexity", _multiple(last.perplexity, dense.perplexity), detail))
    if not last.same_work(dense):  # else what differs is the noise of the machine
        tiles += _speed_tile(report, name)
    body = "".join(
        f'<div class="tile"><div class="name">{escape(title)}</div><div class="figure">'
        f'{escape(figure)}</div><div class="detail">{escape(detail)}</div></div>'
        for title, figure, detail in tiles
    )
    note = f'<p class="note">{escape(ZEROS)}</p>' if _only_zeros(dense, last) else ""
    return f'<div class="tiles">{body}</div>{note}'


def stages(report: Report) -> str:
    """A row for each stage."""
    dense = report.stages.get("dense")
    rows: list[tuple[str, ...]] = [
        (
            name,
            perplexity_text(stage.perplexity),
            *(
                ("" if dense is stage else times(stage.perplexity, dense.perplexity),)
                if dense
                else ()
            ),
            f"{stage.parameters:,}",
            f"{_zeros(stage):.1%}",
            size_text(stage.bytes),
            "-" if stage.tokens_per_second is None else f"{stage.tokens_per_second:,.0f}",
        )
        for name, stage in report.stages.items()
    ]
    header = (
        "stage",
        "perplexity",
        *(("× dense",) if dense else ()),
        "parameters",
        "zeros",
        "size",
    )
    return Sheet("", (*header, "tokens/s"), rows, _windows(report)).html()


def asked(report: Report) -> str:
    """What each method was asked for, and what it came to."""
    rows: list[tuple[str, ...]] = [(one.method, one.asked, one.done) for one in report.asked]
    return Sheet("", ("method", "asked", "done"), rows, left=3).html() if rows else ""


def evaluation(report: Report) -> str:
    """Perplexity of other texts, and tasks."""
    sheets = [perplexity_sheet(report.evaluations), task_sheet(report.evaluations)]
    return "".join(f"<h3>{escape(s.title)}</h3>{s.html()}" for s in sheets if s is not None)


def blocks(report: Report) -> str:
    """Heads, widths, zeros and importance, block by block."""
    shapes = report.blocks
    if not shapes:
        return ""
    at = [shape.index for shape in shapes]
    heads = {"heads": [b.heads for b in shapes], "kv": [b.kv_heads for b in shapes]}
    figures = [
        figure(
            "Attention heads",
            {"heads": f"query {_of(shapes, 'heads')}", "kv": f"key/value {_of(shapes, 'kv_heads')}",
             "dense": "removed"},
            bars_svg("query heads and key/value heads kept in each block", at, heads,
                     [b.dense_heads for b in shapes]),
        ),
        figure(
            "MLP neurons",
            {"neurons": f"kept {_of(shapes, 'width')}", "dense": "removed"},
            bars_svg("MLP neurons kept in each block", at, {"neurons": [b.width for b in shapes]},
                     [b.dense_width for b in shapes]),
        ),
    ]  # fmt: skip
    sites = list(dict.fromkeys(site for shape in shapes for site in shape.sparsity))
    if any(share > 0 for shape in shapes for share in shape.sparsity.values()):
        rows = {site: [shape.sparsity.get(site) for shape in shapes] for site in sites}
        picture = heatmap_svg("fraction of zeros of each matrix in each block", at, rows)
        figures.append(figure("Weights set to zero", {"scale": "0% to 100%"}, picture))
    for name, values in report.importance.items():
        known = [index for index in at if index in values]
        picture = bars_svg(name, known, {"value": [values[index] for index in known]})
        figures.append(figure(name, {}, picture) if known else "")
    return f'<div class="figures">{"".join(figures)}</div>'


def recovery(report: Report) -> str:
    """Loss and perplexity while the model was trained."""
    figures = []
    loss = report.curves.get("train_loss", [])
    if len(loss) > 1:
        smooth = smoothed(loss)
        lines = {"loss pale": loss, "loss": smooth} if smooth else {"loss": loss}
        picture = lines_svg("training loss over steps", lines, {})
        figures.append(figure("Training loss, nats a token", {}, picture))
    perplexity = report.curves.get("val_perplexity", [])
    if perplexity:
        measured = {name: stage.perplexity for name, stage in report.stages.items()}
        levels = {n: v for n, v in measured.items() if n in ("dense", "pruned") and v is not None}
        picture = lines_svg("perplexity over steps", {"perplexity": perplexity}, levels)
        figures.append(figure("Validation perplexity", {}, picture))
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def sayings(report: Report) -> str:
    """For each prompt, how each stage's model goes on, side by side."""
    prompts = list(
        dict.fromkeys(a.prompt for found in report.evaluations.values() for a in found.answers)
    )
    parts = []
    for prompt in prompts:
        said = {
            name: next((a for a in found.answers if a.prompt == prompt), None)
            for name, found in report.evaluations.items()
        }
        cards = "".join(
            f'<div class="saying"><div class="name">{escape(name)} · {unique_text(a.unique)}'
            f'</div><div class="text">{escape(a.text)}</div></div>'
            for name, a in said.items()
            if a is not None
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
    sheet = speed_sheet(report.evaluations, works)
    return sheet.html() if sheet is not None else ""


def settings(report: Report) -> str:
    """What the run was made with."""
    tables = {"measured": report.settings, **report.configuration}
    parts = [
        f"<div><h3>{escape(name)}</h3>{pairs(table)}</div>"
        for name, table in tables.items()
        if table
    ]
    return f'<div class="settings">{"".join(parts)}</div>' if parts else ""


def provenance(report: Report) -> str:
    """Where everything comes from: versions, hashes, seeds."""
    return pairs({**report.provenance, **report.versions})


def files(report: Report, folder: Path) -> str:
    """Links to what the run wrote."""
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


def _speed_tile(report: Report, last: str) -> list[tuple[str, str, str]]:
    """Decoding where it was measured, else the forward pass."""
    found = [report.evaluations.get(name) for name in ("dense", last)]
    decode = [f.speeds[0].decode_tokens_per_second if f and f.speeds else None for f in found]
    forward = [report.stages[n].tokens_per_second if n in report.stages else None
               for n in ("dense", last)]  # fmt: skip
    for name, (before, now) in (("decode speed", decode), ("forward speed", forward)):
        if before and now:
            figure = roughly(now, before).replace("x", "×")
            return [(name, figure, f"{before:,.0f} → {now:,.0f} tokens/s")]
    return []


def _multiple(value: float, dense: float) -> str:
    return times(value, dense).replace("x", "×") or perplexity_text(value)


def _from(dense: StageMetrics, last: StageMetrics, name: str) -> str:
    show = size_text if name == "bytes" else count_text
    return f"{show(getattr(dense, name))} → {show(getattr(last, name))}"


def _zeros(stage: StageMetrics) -> float:
    return 1 - stage.nonzero / max(stage.parameters, 1)


def _only_zeros(dense: StageMetrics, last: StageMetrics) -> bool:
    return last.parameters >= dense.parameters and _zeros(last) > _zeros(dense) + 5e-4


def _windows(report: Report) -> str:
    window, count = (report.settings.get(key) for key in ("window", "validation_windows"))
    begin = begun(report.settings.get("begin"))
    told = f"Perplexity is of {count} validation windows of {window} tokens{begin}."
    return told if window else ""


def _of(shapes: list[Any], name: str) -> str:
    kept = sum(getattr(shape, name) for shape in shapes)
    dense = sum(getattr(shape, f"dense_{name}") for shape in shapes)
    return f"{kept:,} of {dense:,}"
