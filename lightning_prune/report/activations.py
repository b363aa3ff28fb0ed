"""Thresholds of activations, as a table and as JSON."""

from __future__ import annotations

from lightning_prune.analysis.activations import Thresholds
from lightning_prune.analysis.keys import place_of
from lightning_prune.report.files import Document
from lightning_prune.report.numbers import share_text
from lightning_prune.report.tables import Figure, Row, Table

__all__ = ["activations_document"]


def activations_document(found: Thresholds) -> Document:
    """Thresholds by projection as they are printed; all of them are written as JSON."""
    places = {name: place_of(name) for name in found.thresholds}
    kinds = list(dict.fromkeys(place[1] for place in places.values() if place is not None))
    rows: list[Row] = []
    for kind in kinds:
        names = [name for name, place in places.items() if place is not None and place[1] == kind]
        values = sorted(found.thresholds[name] for name in names)
        shares = [found.reached[name] for name in names]
        middle = values[len(values) // 2]
        rows.append(
            (
                kind,
                *(Figure(v, f"{v:.3g}") for v in (values[0], middle, values[-1])),
                *(Figure(s, share_text(s)) for s in (min(shares), max(shares))),
            )
        )
    title = (
        f"{found.model}\nthresholds that leave out {share_text(found.sparsity)} of the inputs "
        f"of each {found.scope}"
    )
    if found.scope == "model":
        title = title.replace("each model", "the model")
    header = ("Linear", "lowest", "median", "highest", "left out, least", "most")
    note = f"over blocks; of {found.tokens:,} tokens of calibration text; |x| > threshold is kept"
    table = Table(title, header, rows, note)
    return Document("activations", found.to_dict(), printed=[table])
