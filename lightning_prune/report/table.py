"""The stages of a run as a table for the terminal.

Written in ASCII, so that it survives any terminal and any log file; rich chooses the lines.
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.report.numbers import count_text, perplexity_text, roughly, size_text, times
from lightning_prune.report.report import Report, StageMetrics
from lightning_prune.tokens import begun

__all__ = ["print_report", "stage_table"]

ZEROS_NOTE = "Zeros in dense tensors save neither bytes nor time."
NOTE_WIDTH = 7


def stage_table(report: Report) -> Table:
    """One row per stage: perplexity, parameters, zeros, bytes and speed.

    Where there is a stage "dense", the figures of the others are followed by their relation to it;
    not the speed of one that has only more zeros, which do the same work.
    """
    dense = report.stages.get("dense")
    compared = dense is not None and len(report.stages) > 1
    table = Table(
        box=box.SIMPLE_HEAD,
        title=_title(report),
        title_style="bold",
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("stage", no_wrap=True)
    for name, relation in (
        ("perplexity", "x dense"),
        ("parameters", "% of dense"),
        ("zeros", ""),
        ("size", ""),
        ("tokens/s", "x dense"),
    ):
        header = f"{name}\n({relation})" if compared and relation else name
        table.add_column(header, justify="right", no_wrap=True)
    for name, stage in report.stages.items():
        table.add_row(Text(name), *_cells(stage, dense if compared else None))
    if dense is not None and any(_only_zeros(stage, dense) for stage in report.stages.values()):
        table.caption = ZEROS_NOTE
    return table


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the table, what each model said, and the files, one per line and never broken."""
    console = console or Console()
    console.print(stage_table(report))
    if report.samples:
        samples = Table.grid(padding=(0, 2))
        for name, text in report.samples.items():
            samples.add_row(Text(name, "bold"), Text(" ".join(text.split()), "dim"))
        console.print(samples, end="\n\n")
    width = max(map(len, report.files), default=0)
    for name, path in report.files.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def _title(report: Report) -> Text:
    window, count, *rest = (
        report.settings.get(name) for name in ("window", "validation_windows", "device", "dtype")
    )
    begin = begun(report.settings.get("begin"))
    windows = f"{count or ''} windows of {window} tokens{begin}".strip() if window else None
    facts = ", ".join(str(fact) for fact in (windows, *rest) if fact)
    return Text("\n".join(filter(None, [report.model, report.method, facts])))


def _cells(stage: StageMetrics, dense: StageMetrics | None) -> list[Text]:
    """The figures of a stage; beside `dense`, room for their relation to it, empty for itself."""
    perplexity, count = Text(perplexity_text(stage.perplexity)), Text(count_text(stage.parameters))
    speed = Text("-" if stage.tokens_per_second is None else f"{stage.tokens_per_second:,.0f}")
    if dense is not None:
        faster = roughly(stage.tokens_per_second, dense.tokens_per_second)
        relations = (
            (perplexity, times(stage.perplexity, dense.perplexity)),
            (count, f"{stage.parameters / max(dense.parameters, 1):.1%}"),
            (speed, "" if stage.same_work(dense) else faster),
        )
        for cell, relation in relations:
            cell.append(f"{'' if stage is dense else relation:>{NOTE_WIDTH}}", style="dim")
    return [perplexity, count, Text(f"{_zeros(stage):.1%}"), Text(size_text(stage.bytes)), speed]


def _only_zeros(stage: StageMetrics, dense: StageMetrics) -> bool:
    more_zeros = round(_zeros(stage), 3) > round(_zeros(dense), 3)
    return more_zeros and stage.parameters >= dense.parameters


def _zeros(stage: StageMetrics) -> float:
    return 1 - stage.nonzero / max(stage.parameters, 1)
