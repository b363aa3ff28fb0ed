"""`lightning-prune analyze`: how alike scores are, or circuits, as tables and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning_prune.analysis.circuits import compare_circuits
from lightning_prune.analysis.scores import compare_scores
from lightning_prune.attribution.attributions import Attributions
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.report.files import print_document, print_files, show
from lightning_prune.report.names import file_names
from lightning_prune.report.overlaps import overlaps_document
from lightning_prune.report.scores import scores_document, write_scores

__all__ = ["analyze"]


def analyze(
    what: Literal["scores", "circuits"],
    paths: list[str],
    *,
    counts: list[int] | None = None,
    out: str | Path | None = None,
) -> None:
    """Analyse what runs leave behind.

    `scores` compares the scores of two plans, or those that the scores of one plan were put
    together from: Pearson, Spearman, cosine, what each would keep, distributions. Methods leave
    scores in their plan if made with keep_scores=True.

    `circuits` compares two or more circuits of one model by the members that they share, or two or
    more attributions by their ranks and by the members that their lowest share.

    Args:
        what: scores or circuits.
        paths: of scores, one or two folders of plans, or their plan.json; of circuits, files of
            circuits (.json), folders with circuit.json, or files of attributions (.safetensors).
        counts: so many of the lowest of attributions, or of the first of circuits, are compared;
            if not given, 10 and 100 of attributions, and circuits as a whole.
        out: a folder for scores.json and scores.pdf, or for circuits.md, .csv, .json, .svg and
            .html.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a plan keeps no scores, there are too many paths or too few, or they are not of
            the same parts.
    """
    if what == "circuits":
        _circuits(paths, counts, out)
    else:
        _scores(paths, counts, out)


def _scores(paths: Sequence[str], counts: Sequence[int] | None, out: str | Path | None) -> None:
    if not 1 <= len(paths) <= 2:
        raise ValueError(f"one or two plans are compared, and {len(paths)} are given")
    if counts is not None:
        raise ValueError("counts goes with circuits; scores are compared as a whole")
    folder = writable_folder(out)
    report = compare_scores(*paths)
    print_document(scores_document(report))
    if folder is not None:
        print_files(write_scores(report, folder))


def _circuits(paths: Sequence[str], counts: Sequence[int] | None, out: str | Path | None) -> None:
    folder = writable_folder(out)
    files = [_file(path) for path in paths]
    names = file_names(map(str, files))
    if len(names) < len(files):
        twice = next(path for path, file in zip(paths, files, strict=True) if files.count(file) > 1)
        raise ValueError(f"{twice} is named twice; name each circuit once")
    compared = {names[str(file)]: _loaded(file) for file in files}
    show(overlaps_document(compare_circuits(compared, counts)), folder)


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
