"""What a run achieved: figures as JSON, a table for the terminal, a picture, and progress."""

from lightning_prune.report.picture import structure_svg
from lightning_prune.report.report import Asked, BlockShape, Report, StageMetrics
from lightning_prune.report.table import print_report, stage_table

__all__ = [
    "Asked",
    "BlockShape",
    "Report",
    "StageMetrics",
    "print_report",
    "stage_table",
    "structure_svg",
]
