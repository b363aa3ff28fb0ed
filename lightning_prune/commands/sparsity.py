"""`lightning-prune sparsity PATH`: the zeros of a saved model, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_prune.analysis.zeros import PATTERNS
from lightning_prune.analysis.zeros import sparsity as count_zeros
from lightning_prune.checkpoints.bundled import bundled_model
from lightning_prune.commands.arguments import Kept, writable_folder
from lightning_prune.report.files import show
from lightning_prune.report.kept.runs import zeros_run
from lightning_prune.report.zeros import zeros_document

__all__ = ["sparsity"]


def sparsity(
    path: str, kept: Kept, *, patterns: Sequence[str] = PATTERNS, out: str | Path | None = None
) -> None:
    """Count the zeros of a saved model, without loading it.

    Per block, per kind of matrix, per row, and by N:M pattern (N kept of M consecutive inputs).

    Args:
        path: a Hugging Face folder with safetensors, one such file, or "quickstart".
        kept: where the result is added.
        patterns: the patterns N:M to look for.
        out: a folder for sparsity.json, which has everything.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: a pattern is none, or the files are damaged.
    """
    folder = writable_folder(out)
    place = bundled_model(path) or path
    report = replace(count_zeros(place, patterns), path=path)
    show(zeros_document(report), folder)
    kept.add(zeros_run, report, place)
