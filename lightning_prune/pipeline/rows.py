"""How many rows of calibration text there are for the widest input, and how many it takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.anatomy.tasks import Task
from lightning_prune.evidence import Evidence

__all__ = ["few_rows", "say_few_rows"]

_log = logging.getLogger(__name__)


def few_rows(
    requests: Iterable[Evidence], blocks: Sequence[Block], rows: int, task: Task
) -> str | None:
    """One line, if some evidence wants more rows than there are; else None.

    Args:
        requests: the evidence that is collected.
        blocks: with the sites at whose inputs it is.
        rows: those that count, of all processes.
        task: says what they are.
    """
    wanted = max((evidence.rows_per_feature for evidence in requests), default=0)
    if not wanted:
        return None
    widest = max((s for b in blocks for s in b.sites), key=lambda site: site.module.in_features)
    width = widest.module.in_features
    if rows >= wanted * width:
        return None
    return (
        f"{rows:,} calibration {task.rows} are few for inputs {width:,} wide ({widest.name}): how "
        f"they go together can be relied on from {wanted * width:,} {task.rows} on, and counts for "
        f"less until then. Give {task.more}."
    )


def say_few_rows(
    requests: Iterable[Evidence], blocks: Sequence[Block], rows: int, task: Task
) -> None:
    """Log the line of `few_rows` in process 0, each but once."""
    line = few_rows(requests, blocks, rows, task)
    if line is not None and distributed.rank() == 0:
        _once(line)


@lru_cache(maxsize=256)
def _once(line: str) -> None:
    _log.warning(line)
