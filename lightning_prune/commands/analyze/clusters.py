"""`lightning-prune analyze clusters PATH`: structure in the masks of one model or plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_prune.analysis.clusters import cluster_masks, middle_block
from lightning_prune.analysis.extra import check_extra
from lightning_prune.analysis.masks import Masks
from lightning_prune.analysis.similarity import Axis
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.report.clusters import clusters_document, write_clusters
from lightning_prune.report.files import print_document, print_files

__all__ = ["clusters"]


def clusters(
    path: str,
    *,
    include: Sequence[str] | None = None,
    axis: Axis = "auto",
    counts: Sequence[int] = (4, 8, 16),
    features: int = 512,
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
) -> None:
    """Look for structure in masks: clusters, orders, zero blocks.

    All is compared with shuffled masks, and done again for every seed.

    Args:
        path: a folder of a model or plan, a safetensors file, or a plan.json beside a model.
        include: patterns of names of matrices, as in "*.5.mlp.*"; None: those of the middle block.
        axis: features are "rows" (output) or "columns" (input) of matrices; "auto": rows of
            down_proj, columns of all others.
        counts: of clusters.
        features: so many at most are drawn for each seed.
        seeds: of what is drawn at random.
        out: a folder for clusters.md, .csv, .json, and a page for each matrix (.png, .pdf).

    Raises:
        FileNotFoundError: there is no model or plan.
        ModuleNotFoundError: scikit-learn is not installed, or with out matplotlib.
        ValueError: no matrix is meant, or there are more clusters than features.
    """
    check_extra("analyze clusters", "sklearn", *(["matplotlib"] if out is not None else []))
    folder = writable_folder(out)
    masks = Masks(path)
    wanted = middle_block(masks) if include is None else include
    found = list(cluster_masks(masks, wanted, axis, counts, features, seeds))
    print_document(clusters_document(path, found, seeds))
    if folder is not None:
        print_files(write_clusters(path, found, seeds, folder))
