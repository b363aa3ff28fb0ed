"""Self-contained HTML pages: no network, no scripts, light and dark.

Names of models, prompts and whatever a model says are not to be trusted: all text is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lightning_prune.report import sections
from lightning_prune.report.differing import differing
from lightning_prune.report.page_style import STYLE
from lightning_prune.report.report import Report

__all__ = ["page", "report_page"]

SECTIONS = (
    ("", sections.headline),
    ("Stages", sections.stages),
    ("Asked and done", sections.asked),
    ("Evaluation", sections.evaluation),
    ("Blocks", sections.blocks),
    ("Recovery", sections.recovery),
    ("What the models say", sections.sayings),
    ("Where they differ", differing),
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
    head = sections.head(report)
    return page_of(f"{report.model}: pruning report", f"{head}\n{''.join(parts)}")


def page(title: str, kicker: str, parts: Sequence[tuple[str, str]]) -> str:
    """A page of sections.

    Args:
        title: at its top.
        kicker: what kind of page it is, in a word or two.
        parts: heading and HTML of each section; without a heading if it is empty.
    """
    sections = [
        f"<section>{f'<h2>{escape(heading)}</h2>' if heading else ''}{body}</section>"
        for heading, body in parts
    ]
    head = f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1></header>'
    return page_of(title, f"{head}\n{''.join(sections)}")


def page_of(title: str, body: str) -> str:
    """A page with nothing in it that is not in its file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )
