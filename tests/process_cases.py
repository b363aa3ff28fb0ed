"""Cases that import nothing, for the test of a pair that has to be started twice."""

from __future__ import annotations

import os
import time


def rank() -> int:
    return int(os.environ["RANK"])


def leave_one_behind() -> None:
    """One process fails where the other waits for it."""
    if rank() == 0:
        raise ValueError("gone")
    time.sleep(600)
