"""The units that stay, and how blocks are numbered before and after some are taken out.

Axes: U units of one block.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

import torch

__all__ = ["Kept", "left_over", "numbered_before"]


@dataclass(frozen=True, eq=False)
class Kept:
    """The units of one kind that one block keeps: their sorted indices, out of `total`."""

    index_U: torch.Tensor
    total: int

    @property
    def removed(self) -> int:
        """How many units go."""
        return self.total - self.index_U.numel()


def numbered_before(block: int, gone: Set[int]) -> int:
    """The number that a block had before those of `gone` were taken out."""
    for index in sorted(gone):
        block += index <= block
    return block


def left_over(corrected: dict[str, str], gone: Set[int]) -> dict[str, str]:
    """Corrected weights, named as after the blocks of `gone` were taken out."""
    left = {}
    for name, digest in corrected.items():
        number = re.search(r"(?<=\.)\d+(?=\.)", name)  # the first number is the block's
        if number is None:
            left[name] = digest
        elif (block := int(number[0])) not in gone:
            now = block - sum(index < block for index in gone)
            left[f"{name[: number.start()]}{now}{name[number.end() :]}"] = digest
    return left
