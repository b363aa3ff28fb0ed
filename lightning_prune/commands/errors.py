"""Errors that fit on one line, and are said once however many processes meet them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn

from lightning_prune.files import is_disk_full
from lightning_prune.parsing import Refused

__all__ = ["end", "fail", "is_ours", "note_parent", "process_rank"]

WAIT = 15.0  # seconds that another process has to fail first
_parent = os.getppid()


def end(error: BaseException) -> NoReturn:
    """Say in one line what is wrong, if that is all there is to say, and exit with status 2.

    Raises:
        SystemExit: the error is this package's own, one that a class has raised of its arguments,
            or of the disk.
        BaseException: the error itself, which is unexpected.
    """
    refused = isinstance(error, Refused)
    root = error.error if isinstance(error, Refused) else error
    if is_disk_full(root):
        fail(f"{_message(root)}. {_way_out(root)}")
    if (
        isinstance(root, OSError)
        or (isinstance(root, ValueError) and refused)
        or (isinstance(root, (ValueError, TypeError, KeyError, ImportError)) and is_ours(root))
        or (isinstance(root, ValueError) and _is_of_settings(root))
        or type(root).__name__ == "MisconfigurationException"  # Lightning may not be imported
    ):
        fail(_message(root))
    if _said_by_first_process():
        raise SystemExit(2) from None
    raise root


def fail(reason: str) -> NoReturn:
    """Say what is wrong in one line, and exit with status 2."""
    if not _said_by_first_process():
        where = f" in process {process_rank()}" if process_rank() else ""
        print(f"lightning-prune: error{where}: {reason}", file=sys.stderr)
    raise SystemExit(2)


def note_parent() -> None:
    """Remember, when a command begins, which process has started this one; it may be gone later."""
    global _parent
    _parent = os.getppid()


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by a line of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parents[1]
    return bool(frames) and Path(frames[-1].filename).is_relative_to(package)


def _is_of_settings(error: BaseException) -> bool:
    """Whether Lightning's Trainer or one of its loops refuses a setting."""
    lightning = sys.modules.get("lightning.pytorch")
    frames = traceback.extract_tb(error.__traceback__)
    if lightning is None or not frames:
        return False
    folder = Path(str(lightning.__file__)).parent
    last = Path(frames[-1].filename)
    return any(last.is_relative_to(folder / part) for part in ("trainer", "loops", "callbacks"))


def _message(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:  # str() of it is a repr
        return str(error.args[0])
    return " ".join(str(error).split())


def _way_out(error: BaseException) -> str:
    """What to do where a disk is full."""
    path = str(getattr(error, "filename", None) or "")
    temporary = path.startswith(tempfile.gettempdir() + os.sep)
    other = "TMPDIR=" if temporary else "--trainer.default_root_dir, or --out"
    return (
        f"Make room there, and the same command goes on with what is finished; or give another "
        f"folder ({other})"
    )


def _said_by_first_process() -> bool:
    """Whether this is a process that another one started, which has failed too and said why.

    Most errors are met by all processes. The others wait a little: if the first one goes, it has
    told the user; if it stays, the error is this process's own.
    """
    if not process_rank():
        return False
    deadline = time.monotonic() + WAIT
    while os.getppid() == _parent:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def process_rank() -> int:
    """This process's number; 0 where Lightning, which starts the others, is not imported."""
    utilities = sys.modules.get("lightning.pytorch.utilities")
    return getattr(getattr(utilities, "rank_zero_only", None), "rank", None) or 0
