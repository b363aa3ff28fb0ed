"""What every sweep yields: blocks, one after the other, with what was collected of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning_prune.anatomy import Block
from lightning_prune.machine import give_back

__all__ = ["Steps", "handed_over"]

Steps = Iterator[tuple[Block, dict[str, Any]]]
"""A block, or a part of it, and the results of its evidence by name."""


def handed_over(block: Block, results: dict[str, Any]) -> Steps:
    """Yield a block with its results, which are gone when the caller asks for the next.

    Otherwise the caller's name for them would keep them while those of the next are collected.
    """
    give_back()  # what the sums took, before something is made of the results
    yield block, results
    results.clear()
    give_back()
