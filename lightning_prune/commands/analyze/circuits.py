"""`lightning-prune analyze circuits A B …`: how alike circuits are, as tables and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lightning_prune.analysis.circuits import compare_circuits
from lightning_prune.attribution.attributions import Attributions
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.commands.arguments import Kept, writable_folder
from lightning_prune.report.files import show
from lightning_prune.report.kept.studies import overlaps_run
from lightning_prune.report.names import file_names
from lightning_prune.report.overlaps import overlaps_document

__all__ = ["circuits"]


def circuits(
    paths: list[str],
    kept: Kept,
    *,
    counts: Sequence[int] | None = None,
    out: str | Path | None = None,
) -> None:
    """Compare circuits, or attributions, by what they share.

    Two or more circuits of one model by their members; two or more attributions by their ranks, and
    by the members that their lowest share.

    Args:
        paths: files of circuits (.json), folders with circuit.json, or files of attributions
            (.safetensors).
        kept: where the result is added.
        counts: so many of the lowest of attributions, or of the first of circuits, are compared;
            if not given, 10 and 100 of attributions, and circuits as a whole.
        out: a folder for circuits.md, .csv, .json, .svg and .html.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there are fewer than two, or they are not of the same parts.
    """
    folder = writable_folder(out)
    files = [_file(path) for path in paths]
    names = file_names(map(str, files))
    if len(names) < len(files):
        twice = next(path for path, file in zip(paths, files, strict=True) if files.count(file) > 1)
        raise ValueError(f"{twice} is named twice; name each circuit once")
    compared = {names[str(file)]: _loaded(file) for file in files}
    report = compare_circuits(compared, counts)
    show(overlaps_document(report), folder)
    kept.add(overlaps_run, report)


def _file(path: str) -> Path:
    """Of a circuit or of attributions; without links and dots, so that none is taken twice."""
    file = Path(os.path.realpath(path))
    return file / "circuit.json" if file.is_dir() else file


def _loaded(file: Path) -> CircuitUnits | Attributions:
    if file.suffix == ".json":
        return CircuitUnits.load(file)
    if file.suffix == ".safetensors":
        return Attributions.load(file)
    raise ValueError(
        f"{file} is neither a circuit (.json, or a folder with circuit.json) nor attributions "
        "(.safetensors)"
    )
