"""One self-contained HTML page for a run: no network, no scripts, light and dark.

Names of models, prompts and whatever a model says are not to be trusted: all text is escaped.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from lightning_prune.report import sections
from lightning_prune.report.page_style import STYLE
from lightning_prune.report.report import Report

__all__ = ["report_page"]

SECTIONS = (
    ("", sections.headline),
    ("Stages", sections.stages),
    ("Asked and done", sections.asked),
    ("Evaluation", sections.evaluation),
    ("Blocks", sections.blocks),
    ("Recovery", sections.recovery),
    ("What the models say", sections.sayings),
    ("Speed and memory", sections.speed),
    ("Where the time went", sections.seconds),
    ("Settings", sections.settings),
    ("Provenance", sections.provenance),
)


def report_page(report: Report, folder: str | Path) -> str:
    """The page.

    Args:
        report: of a run.
        folder: where the page will lie; links to the run's files are relative to it.
    """
    parts = []
    for title, section in SECTIONS:
        if body := section(report):
            heading = f"<h2>{escape(title)}</h2>" if title else ""
            parts.append(f"<section>{heading}{body}</section>")
    files = sections.files(report, Path(folder))
    parts += [f"<section><h2>Files</h2>{files}</section>"] if files else []
    title = f"{report.model}: pruning report"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{sections.head(report)}\n{''.join(parts)}\n</main>\n</body>\n</html>\n"
    )
