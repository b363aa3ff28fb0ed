"""SLURM's signal before a job's time is up: while nothing is trained, the job is queued again.

While Lightning trains it does so itself, behind a checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prune.commands.signals import Stopped, refuse, stop

__all__ = ["Signals"]


class Signals(Callback):
    """Handles signals wherever Lightning does not: before it trains, and after.

    Args:
        trainer: of the command.
        requeues: whether what the command has finished is kept, so that it may go on later.
    """

    def __init__(self, trainer: Trainer, requeues: bool) -> None:
        # Lightning's own handlers look there, too.
        environment = trainer._accelerator_connector.cluster_environment
        self._signal: int | None = None
        if requeues and getattr(environment, "auto_requeue", False):
            self._signal = environment.requeue_signal  # type: ignore[attr-defined]
        self._ends = signal.getsignal(signal.SIGTERM) is stop
        self._take()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave SLURM's signal to Lightning, which handles it if nobody else does."""
        if self._signal is not None and signal.getsignal(self._signal) is _requeue:
            signal.signal(self._signal, signal.SIG_DFL)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What comes is merging, measuring and saving."""
        self._take()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Without training there is nothing to keep: SIGTERM ends it at once."""
        if trainer.state.fn != "fit" and self._ends:
            signal.signal(signal.SIGTERM, stop)

    on_test_start = on_validation_start
    on_predict_start = on_validation_start

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the processes that Lightning has started for this one."""
        if isinstance(exception, Stopped) and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)

    def _take(self) -> None:
        if self._signal is not None and threading.current_thread() is threading.main_thread():
            signal.signal(self._signal, _requeue)


def _requeue(signum: int, _: FrameType | None) -> None:
    """Have SLURM queue the job again, and stop.

    Raises:
        Stopped: always.
    """
    refuse(signum, signal.SIGTERM)  # which SLURM sends to a job that is queued again
    addition = ""
    if os.environ.get("SLURM_PROCID", "0") == "0":
        addition = _queued_again()
    raise Stopped(signum, addition)


def _queued_again() -> str:
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f", and job {job} could not be queued again ({error})"
    return f", and job {job} is queued again"
