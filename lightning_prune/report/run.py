"""What a run prints at its end, and leaves in its folder."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from lightning_prune.report.evaluation import answer_table
from lightning_prune.report.files import Document
from lightning_prune.report.page import report_page
from lightning_prune.report.report import Report
from lightning_prune.report.stages import seconds_words, stage_table
from lightning_prune.report.structure import structure_svg

__all__ = ["run_document"]


def run_document(report: Report, folder: str | Path) -> Document:
    """What a run leaves: report.json, report.html and, of a model with blocks, structure.svg.

    Args:
        report: of the run.
        folder: where the files will lie; they are among the files that the report names.
    """
    pages = ("structure.svg",) * bool(report.blocks) + ("report.json", "report.html")
    files = {name: str(Path(folder) / name) for name in pages}
    report = replace(report, files={**report.files, **files})
    return Document(
        "report",
        asdict(report),
        printed=[
            stage_table(report),
            *([answers] if (answers := answer_table(report.evaluations)) else []),
            *([seconds_words(report), ""] if report.seconds else []),
        ],
        texts={
            "report.html": report_page(report, folder),
            "structure.svg": structure_svg(report) if report.blocks else "",
        },
    )
