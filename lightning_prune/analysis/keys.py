"""Keys of scores and circuits: the indices of blocks, or the names of matrices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from os.path import commonprefix

__all__ = ["ALL", "in_order", "place_of", "short_names"]

ALL = "all"
"""The key under which all blocks, or matrices, are taken together."""

_IN_BLOCK = re.compile(r"(?:^|.*?\.)(\d+)\.(.+)")


def place_of(name: str) -> tuple[int, str] | None:
    """The block that a tensor is in, and its name there: (3, "mlp.up_proj"); None: in none."""
    found = _IN_BLOCK.fullmatch(name)
    return (int(found[1]), found[2].removesuffix(".weight")) if found else None


def in_order(keys: Iterable[str]) -> list[str]:
    """Blocks by their numbers, weights by the numbers in their names: on disk 10 is before 2."""

    def order(key: str) -> list[tuple[int, str]]:
        return [(int(p), "") if p.isdigit() else (-1, p) for p in key.split(".")]

    return sorted(keys, key=order)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Keys without what they all begin with, and end with: "3.mlp.up_proj"."""
    shared = commonprefix([key for key in keys if key != ALL]).rpartition(".")[0]
    return {key: key.removeprefix(f"{shared}.").removesuffix(".weight") for key in keys}
