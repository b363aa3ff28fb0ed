"""Progress over the blocks of a model: on a terminal a live line, elsewhere one line at the end."""

from __future__ import annotations

import time
from types import TracebackType

import psutil
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

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

    Example:
        with BlockProgress(len(blocks), "calibrating") as progress:
            for name, block in blocks.items():
                ...
                progress.advance(name)
    """

    def __init__(
        self, total: int, description: str, enabled: bool = True, console: Console | None = None
    ) -> None:
        self.total = total
        self.description = description
        self.enabled = enabled
        self.done = 0
        self._console = console or Console(stderr=True)
        self._start = time.monotonic()
        # markup=False: a name in square brackets is a name
        self._live = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[memory]}", markup=False),
            console=self._console,
            expand=True,
            refresh_per_second=4,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task = self._live.add_task(description, total=total, memory=memory())

    def __enter__(self) -> BlockProgress:
        self._start = time.monotonic()
        self._live.start()
        return self

    def advance(self, name: str) -> None:
        """Count the block `name` as done."""
        self.done += 1
        self._live.update(
            self._task,
            advance=1,
            description=f"{self.description} {name}",
            memory=memory(),
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()
        if self.enabled and not self._console.is_terminal:
            seconds = time.monotonic() - self._start
            count = f"{self.done}/{self.total} blocks"
            line = f"{self.description}: {count} in {seconds:.1f} s, {memory()}"
            self._console.print(Text(line), soft_wrap=True)


def memory() -> str:
    """Resident memory of this process, and on a CUDA device the peak that was allocated."""
    text = f"{psutil.Process().memory_info().rss / 1e9:.1f} GB"
    if torch.cuda.is_available():
        text += f", CUDA peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    return text
