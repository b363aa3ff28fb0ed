"""`lightning-prune analyze similarity A B …`: how alike masks are, as tables and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_prune.analysis.similarity import Axis, compare_masks
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.report.files import print_document, print_files
from lightning_prune.report.names import named_paths
from lightning_prune.report.similarity import similarity_document, write_similarity

__all__ = ["similarity"]


def similarity(
    paths: list[str],
    *,
    axis: Axis = "auto",
    include: Sequence[str] = ("*",),
    features: bool = False,
    out: str | Path | None = None,
) -> None:
    """Compare which weights stay in saved models or plans.

    Jaccard, cosine and Hamming, by feature, matrix, block and projection, of every two. Of models,
    which are not loaded, weights that are not zero stay.

    Args:
        paths: folders of models or plans, safetensors files, or a plan.json beside a model.
        axis: features are "rows" (output) or "columns" (input) of matrices; "auto": rows of
            down_proj, columns of all others.
        include: patterns of names of matrices, as in "*.mlp.*".
        features: with out, write the figures of every feature, too.
        out: a folder for similarity.md, .csv, .json, .svg, and similarity_features.parquet.

    Raises:
        FileNotFoundError: there is no such model or plan.
        ValueError: there are fewer than two, they have no matrix in common, or shapes differ.
    """
    if features and out is None:
        raise ValueError("features is about a file; say in which folder with out")
    folder = writable_folder(out)
    report = compare_masks(named_paths(paths), axis, include, keep_features=features)
    print_document(similarity_document(report))
    if folder is not None:
        print_files(write_similarity(report, folder))
