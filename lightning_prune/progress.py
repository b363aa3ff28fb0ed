"""Progress over the blocks of a model, or other parts of a work.

On a terminal it is a live line, elsewhere one line at the end.

What draws the bar is imported when the first one is shown.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

import psutil
import torch

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["BlockProgress"]


class BlockProgress:
    """Shows how far a pass over the blocks has come, the time left and the memory in use.

    Writes to the standard error stream, so that results on the standard output stay clean. The
    terminal is given back as it was, also when the block of code fails.

    Args:
        total: how many blocks there are.
        description: what is done with them, e.g. "Wanda".
        enabled: False shows nothing; for all ranks but one.
        console: where to write instead.
        unit: what is counted.

    Example:
        with BlockProgress(len(blocks), "calibrating") as progress:
            for name, block in blocks.items():
                ...
                progress.advance(name)
    """

    def __init__(
        self,
        total: int,
        description: str,
        enabled: bool = True,
        console: Console | None = None,
        unit: str = "blocks",
    ) -> None:
        self.total = total
        self.description = description
        self.enabled = enabled
        self.unit = unit
        self.done = 0
        self._console = console
        self._bar: Progress | None = None
        self._start = 0.0

    def __enter__(self) -> BlockProgress:
        self._start = time.monotonic()
        if self.enabled:
            if self._console is None:
                from rich.console import Console

                self._console = Console(stderr=True)
            if self._console.is_terminal:
                self._bar = _bar(self._console)
                self._bar.add_task(self.description, total=self.total, memory=memory_text())
                self._bar.start()
        return self

    def advance(self, name: str) -> None:
        """Count the block, or other part, `name` as done."""
        self.done += 1
        if self._bar is not None:
            line = f"{self.description} {name}"
            task = self._bar.task_ids[0]
            self._bar.update(task, advance=1, description=line, memory=memory_text())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._console is not None and self.enabled:
            seconds = time.monotonic() - self._start
            self._console.print(
                f"{self.description}: {self.done}/{self.total} {self.unit} in {seconds:.1f} s, "
                f"{memory_text()}",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )


def _bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),  # a name in square brackets is a name
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[memory]}", markup=False),
        console=console,
        expand=True,
        refresh_per_second=4,
    )


def memory_text() -> str:
    """Resident memory of this process, and on a CUDA device the peak that was allocated."""
    text = f"{psutil.Process().memory_info().rss / 1e9:.1f} GB"
    if torch.cuda.is_available():
        text += f", CUDA peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    return text
