"""All pictures of some masks, and the numbers that they are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning_prune.analysis.activations import Thresholds
from lightning_prune.analysis.portraits import Portrait
from lightning_prune.report import mask_pictures as draw
from lightning_prune.report.drawing import save
from lightning_prune.report.files import Document, write

__all__ = ["write_portraits"]


def write_portraits(
    portraits: Mapping[str, Portrait],
    shared: Mapping[tuple[str, ...], int] | None,
    thresholds: Thresholds | None,
    folder: str | Path,
) -> dict[str, str]:
    """Draw masks into a folder; returns paths by name.

    Args:
        portraits: by what masks are called.
        shared: how many weights stay in just some of them; None: there is one mask.
        thresholds: of activations, to be drawn, too.
        folder: for the files.

    Raises:
        OSError: the folder cannot be written.
    """
    value = {
        "masks": {name: portrait.to_dict() for name, portrait in portraits.items()},
        "intersections": [{"in": inside, "weights": n} for inside, n in (shared or {}).items()],
    }
    files = write(Document("pictures", value), folder)
    for name, portrait in portraits.items():
        label = name.replace("/", "-")
        pages = {
            f"spy-{label}": draw.spy_page(name, portrait),
            f"sparsity-{label}": draw.sparsity_page(name, portrait),
            f"histograms-{label}": draw.histogram_page(name, portrait),
            f"scores-{label}": draw.curve_page(name, portrait),
        }
        files |= save({n: page for n, page in pages.items() if page is not None}, folder)
    if shared is not None:
        files |= save({"upset": draw.upset_page(list(portraits), shared)}, folder)
    if thresholds is not None:
        files |= save({"thresholds": draw.threshold_page(thresholds)}, folder)
    return files
