"""`lightning-prune analyze pictures A …`: masks as pictures, PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_prune.analysis.activations import Thresholds
from lightning_prune.analysis.clusters import middle_block
from lightning_prune.analysis.extra import check_extra
from lightning_prune.analysis.masks import Masks
from lightning_prune.analysis.portraits import intersections, portrait
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.commands.output import say
from lightning_prune.report.files import print_files
from lightning_prune.report.names import named_paths
from lightning_prune.report.portraits import write_portraits

__all__ = ["pictures"]


def pictures(
    paths: list[str],
    *,
    out: str | Path,
    include: Sequence[str] | None = None,
    thresholds: str | None = None,
) -> None:
    """Draw masks: density, sparsity, histograms, scores, overlap.

    Where weights stay, zeros by block and projection, how they are spread over rows and columns,
    how much of all scores the highest hold, and, of several masks, how many weights stay in which.

    Args:
        paths: folders of models or plans, safetensors files, or a plan.json beside a model.
        out: a folder for the pictures (.png, .pdf), and pictures.json with their numbers.
        include: patterns of names of matrices that are drawn one by one, as in "*.5.mlp.*"; None:
            those of the middle block.
        thresholds: an activations.json to draw, too.

    Raises:
        FileNotFoundError: there is no model, plan or file.
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no matrix is meant, or masks do not fit together.
    """
    check_extra("analyze pictures", "matplotlib")
    activations = None if thresholds is None else Thresholds.read(thresholds)
    sources = {name: Masks(path) for name, path in named_paths(paths).items()}
    folder = writable_folder(out)
    assert folder is not None
    shared = intersections(sources) if len(sources) > 1 else None
    portraits = {
        name: portrait(masks, middle_block(masks) if include is None else include)
        for name, masks in sources.items()
    }
    for name, drawn in portraits.items():
        for matrix, m in drawn.matrices.items():
            if m.strange:
                say(
                    f"{name}: {m.strange:,} weights of {matrix} are infinite or not a number, and "
                    "left out of histograms and scores"
                )
    print_files(write_portraits(portraits, shared, activations, folder))
