"""SIGTERM: a command ends at once, but in order, in one line and with the signal's exit status.

Left alone, the signal ends a process where it stands, and none of its `finally` clauses runs. Here
it raises `Stopped`. While Lightning trains its own handler is in charge, which ends a run behind a
batch.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from lightning_prune.commands.errors import process_rank

__all__ = ["RESUMED", "Stopped", "end_stopped", "handled", "how_stopped", "refuse", "stop"]

KEPT = "what is finished is kept, and the same command again goes on there"
NOT_KEPT = "nothing half done is left, and the same command again begins anew"
RESUMED = ("prune", "fit", "sweep", "search")
"""Commands that go on where they were stopped."""


class Stopped(SystemExit):
    """This process was told to end.

    Attributes:
        how: what happened, in words.
        said: whether the user has been told.

    Args:
        signum: the signal; the exit status is that of a process that it has ended.
        addition: what else happened.
    """

    said = False

    def __init__(self, signum: int, addition: str = "") -> None:
        super().__init__(128 + signum)
        self.how = f"stopped by {signal.Signals(signum).name}{addition}"


def how_stopped(error: BaseException) -> str | None:
    """What happened, if an error is the way in which a signal ends a command; None: it is not."""
    if isinstance(error, Stopped):
        return error.how
    if type(error).__name__ == "SIGTERMException":  # Lightning may not be imported
        return "stopped by SIGTERM"
    return None


def end_stopped(error: SystemExit, command: str | None) -> NoReturn:
    """Say that a signal has ended the command, if one has and it has not been said.

    Raises:
        SystemExit: with the signal's status, or the error's own.
    """
    how = how_stopped(error)
    if how is None:
        raise error
    if not process_rank() and not getattr(error, "said", False):
        kept = KEPT if command in RESUMED else NOT_KEPT
        print(f"lightning-prune: {how}; {kept}", file=sys.stderr)
    status = error.code if isinstance(error, Stopped) else 128 + signal.SIGTERM
    raise SystemExit(0 if _is_child_of_lightning() else status) from None


@contextmanager
def handled() -> Iterator[None]:
    """SIGTERM raises `Stopped`, unless somebody else handles it already."""
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop(signum: int, _: FrameType | None) -> None:
    """Handle a signal.

    Raises:
        Stopped: but where Lightning handles it, and calls this too.
    """
    if signal.getsignal(signum) is stop:
        refuse(signum)
        raise Stopped(signum)


def refuse(*signums: int) -> None:
    """Let nothing break off what follows a signal; SIGKILL comes soon enough."""
    for signum in signums:
        signal.signal(signum, signal.SIG_IGN)


def _is_child_of_lightning() -> bool:
    """Whether Lightning has started this process: if it failed, the first one would be killed."""
    others = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID")
    return bool(process_rank()) and not any(name in os.environ for name in others)
