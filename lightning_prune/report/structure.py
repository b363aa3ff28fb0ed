"""The structure of a pruned model in pictures: what every block kept, its zeros, its importance."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.report.charts import ROOM, ROOM_ALONE, Bars, block_bars, heat_map
from lightning_prune.report.numbers import of_text
from lightning_prune.report.plots import Key, Plot, document
from lightning_prune.report.report import BlockShape, Report

__all__ = [
    "gone_words",
    "importance_plots",
    "structure_plots",
    "structure_svg",
    "whole_words",
]


def structure_svg(report: Report) -> str:
    """The blocks of a run: heads and neurons, kept against dense, and the zeros where masked.

    Raises:
        ValueError: the report has no blocks.
    """
    if not report.blocks:
        raise ValueError("the report has no blocks to draw")
    plots = structure_plots(report.blocks, ROOM_ALONE)
    return document("structure", report.model, [f"structure after {report.method}"], plots)


def structure_plots(blocks: Sequence[BlockShape], room: float = ROOM) -> list[Plot]:
    """Query heads with their key/value heads, MLP neurons and, where masked, zeros by matrix."""
    return [
        _heads(blocks, room),
        _neurons(blocks, room),
        *([_zeros(blocks, room)] if any(block.is_masked for block in blocks) else []),
    ]


def importance_plots(report: Report) -> list[Plot]:
    """The importance of the blocks, by how it was measured."""
    plots = []
    for name, values in report.importance.items():
        known = [block.index for block in report.blocks if block.index in values]
        row = Bars("importance", [values[index] for index in known], "purple", numbered=True)
        plots += [block_bars(name, name, known, [row])] if known else []
    return plots


def whole_words(blocks: Sequence[BlockShape]) -> str:
    """Of blocks that have lost nothing: what they have in all."""
    kinds = {"query heads": "heads", "key/value heads": "kv_heads", "MLP neurons": "width"}
    if not _shared(blocks):
        kinds = {"attention heads": "heads", "MLP neurons": "width"}
    totals = {name: sum(getattr(b, kind) for b in blocks) for name, kind in kinds.items()}
    counts = ", ".join(f"{total:,} {name}" for name, total in totals.items())
    return f"Nothing is cut off: {len(blocks)} blocks with {counts} in all."


def gone_words(blocks: Sequence[BlockShape]) -> str:
    """Which blocks have nothing left; "" if each has something."""
    gone = [str(b.index) for b in blocks if b.is_cut and not (b.heads or b.kv_heads or b.width)]
    return f"{len(gone)} of {len(blocks)} blocks are gone: {', '.join(gone)}." if gone else ""


def _heads(blocks: Sequence[BlockShape], room: float) -> Plot:
    query, key_value = _of(blocks, "heads"), _of(blocks, "kv_heads")
    if not _shared(blocks):
        rows = [
            Bars("heads when dense", [b.dense_heads for b in blocks], "pale", kind="dense"),
            Bars("heads", [b.heads for b in blocks], "blue", kind="heads", numbered=True),
        ]
        alt = f"Bars for each of {len(blocks)} blocks: attention heads {query}"
        return _bars("Attention heads", alt, blocks, rows, [Key(f"kept {query}", "blue")], room)
    rows = [
        Bars("query heads when dense", [b.dense_heads for b in blocks], "pale", kind="dense"),
        Bars("query heads", [b.heads for b in blocks], "blue", kind="heads", numbered=True),
        Bars("key/value heads", [b.kv_heads for b in blocks], "orange", (0.26, 0.74), "kv"),
    ]
    keys = [Key(f"query {query}", "blue"), Key(f"key/value {key_value}", "orange")]
    alt = f"Bars for each of {len(blocks)} blocks: query heads {query}, key/value heads {key_value}"
    return _bars("Attention heads", alt, blocks, rows, keys, room)


def _neurons(blocks: Sequence[BlockShape], room: float) -> Plot:
    kept = _of(blocks, "width")
    rows = [
        Bars("MLP neurons when dense", [b.dense_width for b in blocks], "pale", kind="dense"),
        Bars("MLP neurons", [b.width for b in blocks], "green", kind="neurons", numbered=True),
    ]
    alt = f"Bars for each of {len(blocks)} blocks: MLP neurons {kept}"
    return _bars("MLP neurons", alt, blocks, rows, [Key(f"kept {kept}", "green")], room)


def _bars(
    title: str,
    alt: str,
    blocks: Sequence[BlockShape],
    rows: Sequence[Bars],
    keys: Sequence[Key],
    room: float,
) -> Plot:
    removed = [Key("removed", "pale")] if any(block.is_cut for block in blocks) else []
    return block_bars(
        title,
        alt,
        [block.index for block in blocks],
        rows,
        [*keys, *removed],
        counts=True,
        shown=lambda count: f"{count:,.0f}",
        room=room,
    )


def _zeros(blocks: Sequence[BlockShape], room: float) -> Plot:
    sites = dict.fromkeys(site for block in blocks for site in block.sparsity)
    rows = {site: [block.sparsity.get(site) for block in blocks] for site in sites}
    alt = "The fraction of weights that are zero, by matrix and block"
    indices = [block.index for block in blocks]
    return heat_map("Weights set to zero", alt, indices, rows, room=room)


def _shared(blocks: Sequence[BlockShape]) -> bool:
    """Whether some query heads share a key/value head."""
    return any(block.dense_heads != block.dense_kv_heads for block in blocks)


def _of(blocks: Sequence[BlockShape], kind: str) -> str:
    """What is kept of one kind in all, of what there was."""
    now, before = ([getattr(b, name) for b in blocks] for name in (kind, f"dense_{kind}"))
    return of_text(now, before)
