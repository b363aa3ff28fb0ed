"""Two saved models side by side: figures, blocks, and what only one of them has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_prune.analysis.structure import BlockCounts, Structure
from lightning_prune.report.charts import ROOM_ALONE, Bars, block_bars
from lightning_prune.report.files import Document
from lightning_prune.report.measures import ACCURACY, measure_of, points
from lightning_prune.report.names import model_name
from lightning_prune.report.numbers import count_text, of_text, size_text
from lightning_prune.report.plots import Key, Plot, document
from lightning_prune.report.tables import Figure, Row, Table
from lightning_prune.tokens import begun

Count = Callable[[int], str]

__all__ = ["Comparison", "comparison_document", "ranges"]

COUNTS = (
    ("query heads", "heads", "blue"),
    ("key/value heads", "kv_heads", "orange"),
    ("MLP neurons", "width", "green"),
)
"""What is counted in a block, its attribute, and its colour."""
LONG = {**{name: key for name, key, _ in COUNTS}, "parameters": "parameters"}
SHORT = {"heads": "heads", "KV": "kv_heads", "neurons": "width", "parameters": "parameters"}
"""The same for a terminal, where all of it twice has to have room."""
SAID_IF_OTHER = (
    ("model type", "model_type"),
    ("hidden size", "hidden"),
    ("head size", "head_dim"),
    ("vocabulary", "vocabulary"),
    ("dtype", "dtypes"),
)


@dataclass(frozen=True)
class Comparison:
    """Two saved models.

    Attributes:
        a, b: what they are made of.
        measured: perplexity of both on the same windows, or accuracy on the same images, as the
            settings say; None where neither was asked for.
        settings: how it was measured: measure, text or images, split, windows, length, device.
    """

    a: Structure
    b: Structure
    measured: Sequence[float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[int, BlockCounts | None, BlockCounts | None]]:
        """Every block of either, by its place in the dense model; None where one lacks it."""
        ours, theirs = ({b.index: b for b in s.blocks} for s in (self.a, self.b))
        return [(i, ours.get(i), theirs.get(i)) for i in sorted(ours | theirs)]

    def only(self, which: str) -> list[str]:
        """What one of the two ("a" or "b") has and the other lacks, in words."""
        mine, other = (self.a, self.b) if which == "a" else (self.b, self.a)
        shared = {block.index for block in other.blocks}
        whole = [block.index for block in mine.blocks if block.index not in shared]
        tensors: dict[str, list[int]] = {}
        for index, name in mine.tensors.keys() - other.tensors.keys():
            if index is None:
                tensors[name] = []
            elif index in shared:
                tensors.setdefault(name, []).append(index)
        words = [f"block{'s' * (len(whole) > 1)} {ranges(whole)}"] if whole else []
        return words + [
            f"{name} in block{'s' * (len(at) > 1)} {ranges(sorted(at))}" if at else name
            for name, at in sorted(tensors.items())
        ]


def comparison_document(comparison: Comparison) -> Document:
    """A comparison as it is printed and written: Markdown, JSON and a picture."""
    figures = _figures(comparison)
    paths = {"A": comparison.a.path, "B": comparison.b.path}
    only = [
        f"only in {which.upper()}: {words}" for which in "ab" for words in comparison.only(which)
    ]
    facts = _facts(comparison)
    return Document(
        "compare",
        _value(comparison),
        printed=[
            *(f"{which}  {path}" for which, path in paths.items()),
            "",
            figures,
            _blocks(comparison, SHORT, count_text),
            *filter(None, [*only, facts]),
        ],
        written=[
            "# Two models compared",
            "\n".join(f"- {which}: `{path}`" for which, path in paths.items()),
            figures,
            f"{facts}." if facts else "",
            _blocks(comparison, LONG, lambda count: f"{count:,}"),
            "\n".join(f"- {words}" for words in only),
            "![Widths of the blocks](compare.svg)",
        ],
        picture=_picture(comparison),
    )


def ranges(numbers: Iterable[int]) -> str:
    """Sorted numbers with runs in short: 0-3, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _there(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What is counted, without what neither model has, such as heads of a ConvNeXt."""
    blocks = [block for _, *pair in comparison.pairs for block in pair if block is not None]
    return [kind for kind in COUNTS if any(getattr(block, kind[1]) for block in blocks)]


# --- tables ---


def _figures(comparison: Comparison) -> Table:
    """Totals: name, A, B, their relation. Kinds of size that agree are left out."""
    both = comparison.a, comparison.b
    rows: list[Row] = []
    for name, attribute in SAID_IF_OTHER:
        a, b = (getattr(structure, attribute) for structure in both)
        if a != b:
            rows.append((name, _said(a), _said(b), ""))
    totals = {
        "blocks": [len(s.blocks) for s in both],
        **{
            name: [sum(getattr(b, k) for b in s.blocks) for s in both]
            for name, k, _ in _there(comparison)
        },
        "parameters": [s.parameters for s in both],
        "not zero": [s.nonzero for s in both],
    }
    for name, (a, b) in totals.items():
        rows.append((name, Figure(a, f"{a:,}"), Figure(b, f"{b:,}"), _share(a, b)))
    sizes = [s.bytes for s in both]
    rows.append(("stored size", *(Figure(s, size_text(s)) for s in sizes), _share(*sizes)))
    if comparison.measured is not None:
        a, b = comparison.measured
        measure = measure_of(comparison.settings)
        shown = (Figure(value, measure.text(value)) for value in (a, b))
        if measure is ACCURACY:
            words = f"{points(b, a)} points"
        else:
            words = f"{b / a:.3f}x" if math.isfinite(b / a) else ""
        rows.append((measure.name, *shown, words))
    return Table("", ("", "A", "B", "B of A"), rows)


def _blocks(comparison: Comparison, kinds: Mapping[str, str], counted: Count) -> Table:
    """Blocks by their places, with the counts of A and B; those that are alike in one row.

    Args:
        comparison: of two models.
        kinds: what is counted, by its name in the table.
        counted: a number of parameters as text.
    """
    absent = {key for _, key, _ in COUNTS} - {key for _, key, _ in _there(comparison)}
    kinds = {name: key for name, key in kinds.items() if key not in absent}
    merged: list[tuple[list[int], list[str]]] = []
    for index, a, b in comparison.pairs:
        cells = [_count(block, key, counted) for key in kinds.values() for block in (a, b)]
        if merged and merged[-1][1] == cells:
            merged[-1][0].append(index)
        else:
            merged.append(([index], cells))
    header = ["block", *(f"{name} {which}" for name in kinds for which in "AB")]
    return Table("", header, [(ranges(indices), *cells) for indices, cells in merged])


def _count(block: BlockCounts | None, key: str, counted: Count) -> str:
    if block is None:
        return "-"
    count = getattr(block, key)
    return counted(count) if key == "parameters" else f"{count:,}"


def _facts(comparison: Comparison) -> str:
    """How perplexity, or accuracy, was measured, in one line; "" if it was not."""
    if comparison.measured is None:
        return ""
    get = comparison.settings.get
    if measure_of(comparison.settings) is ACCURACY:
        return (
            f"accuracy on {get('windows'):,} images of {get('images')!r} ({get('split')}), on "
            f"{get('device')}; {get('differing'):,} of them are named differently by A and B"
        )
    words = (
        f"perplexity on {get('windows')} windows of {get('length')} tokens{begun(get('begin'))}, "
        f"{get('split')} text of {get('text')!r}, on {get('device')}"
    )
    return f"{words}; {get('note')}" if get("note") else words


def _value(comparison: Comparison) -> dict[str, Any]:
    """Everything but the shapes of all tensors, for JSON."""
    measured, name = comparison.measured, measure_of(comparison.settings).name
    return {
        **{name: _plain(s) for name, s in (("a", comparison.a), ("b", comparison.b))},
        "blocks": [
            {"index": i, "a": a and asdict(a), "b": b and asdict(b)} for i, a, b in comparison.pairs
        ],
        "only_in_a": comparison.only("a"),
        "only_in_b": comparison.only("b"),
        name: dict(zip("ab", measured, strict=True)) if measured else None,
        "settings": dict(comparison.settings),
    }


def _plain(structure: Structure) -> dict[str, Any]:
    return {k: v for k, v in asdict(structure).items() if k not in ("tensors", "blocks")}


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _share(a: float, b: float) -> str:
    return f"{b / a:.1%}" if a else ""


# --- picture ---


def _picture(comparison: Comparison) -> str:
    """Two bars a block, A grey and B in colour; a block that one lacks has no bar."""
    a, b = (model_name(s.path) for s in (comparison.a, comparison.b))
    plots = [_plot(comparison, *kind) for kind in _there(comparison)]
    return document("compare", f"{a} (A) and {b} (B)", ["widths of the blocks"], plots)


def _plot(comparison: Comparison, name: str, attribute: str, colour: str) -> Plot:
    pairs = comparison.pairs
    a, b = ([getattr(p[side], attribute) if p[side] else 0 for p in pairs] for side in (1, 2))
    total = of_text(b, a)
    rows = [
        Bars(f"{name} in A", a, "grey", (0.0, 0.5), "a", numbered=True),
        Bars(f"{name} in B", b, colour, (0.5, 1.0), "b", numbered=True),
    ]
    return block_bars(
        name[0].upper() + name[1:],
        f"Two bars for each of {len(pairs)} blocks: {name} of B, of those of A: {total}",
        [index for index, _, _ in pairs],
        rows,
        [Key("A", "grey"), Key(f"B: {total}", colour)],
        counts=True,
        shown=lambda value: f"{value:,.0f}",
        room=ROOM_ALONE,
    )
