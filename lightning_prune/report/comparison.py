"""Two saved models side by side: figures, blocks, what only one has, as table, JSON and picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.analysis.structure import BlockCounts, Structure
from lightning_prune.files import atomic_write
from lightning_prune.report.comparison_picture import comparison_svg
from lightning_prune.report.grid import _markdown
from lightning_prune.report.numbers import perplexity_text, size_text
from lightning_prune.tokens import begun

__all__ = ["Comparison", "print_comparison"]

BLOCK_HEAD = ("block", "query heads", "key/value heads", "MLP neurons", "parameters")
FIGURE_HEAD = ("", "A", "B", "B of A")


@dataclass(frozen=True)
class Comparison:
    """Two saved models.

    Attributes:
        a, b: what they are made of.
        perplexity: of both, on the same windows; None where it was not asked for.
        settings: how perplexity was measured: text, split, windows, window, device.
    """

    a: Structure
    b: Structure
    perplexity: Sequence[float] | None = None
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
        found: dict[str, list[int]] = {}
        for index, name in mine.tensors.keys() - other.tensors.keys():
            if index is None:
                found[name] = []
            elif index in shared:
                found.setdefault(name, []).append(index)
        words = [f"block{'s' * (len(whole) > 1)} {ranges(whole)}"] if whole else []
        return words + [
            f"{name} in block{'s' * (len(at) > 1)} {ranges(sorted(at))}" if at else name
            for name, at in sorted(found.items())
        ]

    def facts(self) -> str:
        """How perplexity was measured, in one line; "" if it was not."""
        if self.perplexity is None:
            return ""
        get = self.settings.get
        line = (
            f"perplexity on {get('windows')} windows of {get('window')} tokens"
            f"{begun(get('begin'))}, {get('split')} "
            f"text of {get('text')!r}, on {get('device')}"
        )
        return f"{line}; {get('note')}" if get("note") else line

    def figures(self) -> list[list[str]]:
        """Rows of totals: name, A, B, their relation. Kinds of size that agree are left out."""
        rows = []
        for name, attribute in (
            *(("model type", "model_type"), ("hidden size", "hidden"), ("head size", "head_dim")),
            *(("vocabulary", "vocabulary"), ("dtype", "dtypes")),
        ):
            values = [getattr(s, attribute) for s in (self.a, self.b)]
            if values[0] != values[1]:
                rows.append([name, *(_said(value) for value in values), ""])
        for name, (a, b) in self._totals().items():
            rows.append([name, f"{a:,}", f"{b:,}", _share(a, b)])
        sizes = self.a.bytes, self.b.bytes
        rows.append(["stored size", *(size_text(size) for size in sizes), _share(*sizes)])
        if self.perplexity is not None:
            dense, other = self.perplexity
            times = f"{other / dense:.3f}x" if math.isfinite(other / dense) else ""
            rows.append(["perplexity", perplexity_text(dense), perplexity_text(other), times])
        return rows

    def rows(self) -> list[list[str]]:
        """Rows of blocks: its place, then the counts of A and B; blocks that are alike in one."""
        merged: list[tuple[list[int], list[str]]] = []
        for index, a, b in self.pairs:
            cells = []
            for name in ("heads", "kv_heads", "width", "parameters"):
                cells += ["-" if c is None else f"{getattr(c, name):,}" for c in (a, b)]
            if merged and merged[-1][1] == cells:
                merged[-1][0].append(index)
            else:
                merged.append(([index], cells))
        return [[ranges(indices), *cells] for indices, cells in merged]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can say it."""
        perplexity = dict(zip("ab", self.perplexity, strict=True)) if self.perplexity else None
        return {
            **{name: _plain(s) for name, s in (("a", self.a), ("b", self.b))},
            "blocks": [
                {"index": i, "a": a and asdict(a), "b": b and asdict(b)} for i, a, b in self.pairs
            ],
            "only_in_a": self.only("a"),
            "only_in_b": self.only("b"),
            "perplexity": perplexity
            and {k: v if math.isfinite(v) else str(v) for k, v in perplexity.items()},
            "settings": dict(self.settings),
        }

    def to_markdown(self) -> str:
        """The tables, what only one has, and the picture."""
        head = ["block"] + [f"{name} {which}" for name in BLOCK_HEAD[1:] for which in "AB"]
        lines = ["# Two models compared", "", f"- A: `{self.a.path}`", f"- B: `{self.b.path}`", ""]
        lines += _markdown(list(FIGURE_HEAD), self.figures())
        lines += ["", self.facts() + "." if self.facts() else "", ""]
        lines += [*_markdown(head, self.rows()), ""]
        for which in "ab":
            lines += [f"- only in {which.upper()}: {words}" for words in self.only(which)]
        return "\n".join([*lines, "", "![Widths of the blocks](compare.svg)", ""])

    def write(self, folder: str | Path) -> dict[str, str]:
        """Write compare.json, compare.md and compare.svg; returns their paths by name."""
        value = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        texts = {
            "compare.json": value + "\n",
            "compare.md": self.to_markdown(),
            "compare.svg": comparison_svg(self.a.path, self.b.path, self.pairs),
        }
        for name, text in texts.items():
            with atomic_write(Path(folder) / name) as file:
                file.write(text)
        return {name: str(Path(folder) / name) for name in texts}

    def _totals(self) -> dict[str, tuple[int, int]]:
        both = self.a, self.b
        summed = {
            name: [sum(getattr(block, key) for block in s.blocks) for s in both]
            for name, key in zip(BLOCK_HEAD[1:4], ("heads", "kv_heads", "width"), strict=True)
        }
        named = {
            "blocks": [len(s.blocks) for s in both],
            **summed,
            "parameters": [s.parameters for s in both],
            "not zero": [s.nonzero for s in both],
        }
        return {name: (a, b) for name, (a, b) in named.items()}


def print_comparison(
    comparison: Comparison, files: Mapping[str, str], console: Console | None = None
) -> None:
    """Print the totals, the blocks (those that are alike in one row), and what only one has."""
    console = console or Console()
    for which, structure in (("A", comparison.a), ("B", comparison.b)):
        console.print(Text.assemble((which, "bold"), f"  {structure.path}"), soft_wrap=True)
    console.print()
    totals = _table()
    for name in FIGURE_HEAD:
        totals.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in comparison.figures():
        totals.add_row(*row)
    console.print(totals)
    blocks = _table()
    blocks.add_column("block", no_wrap=True)
    for name in BLOCK_HEAD[1:]:
        for which in "AB":
            blocks.add_column(f"{name}\n{which}" if which == "A" else "\nB", justify="right")
    for cells in comparison.rows():
        blocks.add_row(*cells)
    console.print(blocks)
    lines = [
        f"only in {which.upper()}: {words}" for which in "ab" for words in comparison.only(which)
    ]
    for line in filter(None, [*lines, comparison.facts()]):
        console.print(Text(line), soft_wrap=True)
    width = max(map(len, files), default=0)
    for name, path in files.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def ranges(numbers: Iterable[int]) -> str:
    """Sorted numbers with runs in short: 0-3, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _plain(structure: Structure) -> dict[str, Any]:
    return {
        name: value
        for name, value in asdict(structure).items()
        if name not in ("tensors", "blocks")
    }


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _share(a: float, b: float) -> str:
    return f"{b / a:.1%}" if a else ""


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
