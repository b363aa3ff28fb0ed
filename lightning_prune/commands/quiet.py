"""Messages of other libraries that a user can do nothing about: left out where they arise."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_loading", "quiet_training", "without_kernel_line"]

ADVICE = (
    ".*does not have many workers.*",  # the data is in memory
    ".*exists and is not empty.*",  # a run may go on in its own folder
    ".*is_gradient_checkpointing.*",  # peft asks transformers by an old name
    ".*LeafSpec.*",  # lightning asks torch by an old name
)


def without_kernel_line() -> None:
    """Leave out that bitsandbytes finds no faster kernel for CPUs, which it says when imported."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_kernel_line)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars of transformers while models are loaded."""
    from transformers.utils import logging as transformers

    shown = transformers.is_progress_bar_enabled()
    transformers.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.enable_progress_bar()


@contextmanager
def quiet_training() -> Iterator[None]:
    """Neither advertising of Lightning nor advice that cannot be followed."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_tip)
    with quiet_loading(), warnings.catch_warnings():
        for message in ADVICE:
            warnings.filterwarnings("ignore", message=message)
        yield


def _is_no_kernel_line(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.getMessage()


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
