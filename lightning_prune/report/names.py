"""What models and texts are called: by their names, not by where they lie on a disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["file_names", "model_name", "named_paths", "short_names", "unit_names", "without_places"]

STAGES = ("pruned", "recovered", "model", "best")
"""Folders of a run that hold models: the run tells them apart."""
CACHED = re.compile(r"models--(.+?)/snapshots/[^/]+/?$")
QUOTED = re.compile(r"(['\"])(.+?)\1")


class HasHeads(Protocol):
    """A block, or its shape."""

    @property
    def heads(self) -> int:
        """Query heads."""

    @property
    def kv_heads(self) -> int:
        """Key/value heads."""


def model_name(path: str) -> str:
    """What to call a model that is given by its folder or by its name on the hub.

    A folder is called by its last part, with the run's name where that is the same in all runs; a
    snapshot in the hub's cache by its name on the hub.
    """
    if cached := CACHED.search(path):
        return cached[1].replace("--", "/")
    if not _is_place(path):
        return path
    *_, run, name = ("", "", *Path(os.path.abspath(path)).parts)
    return f"{run}/{name}" if name in STAGES else name


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Names, files and folders by as many of their last parts as tell them apart."""
    paths = list(dict.fromkeys(paths))
    shown = {}
    for path in paths:
        others = [other for other in paths if other != path]
        parts = Path(path).parts if _is_place(path) else (path,)
        depth = 1
        while depth < len(parts) and any(_ends(other, parts[-depth:]) for other in others):
            depth += 1
        shown[path] = "/".join(parts[-depth:]) or path
    return shown


def file_names(paths: Iterable[str]) -> dict[str, str]:
    """Files by the fewest of their parts that tell them apart, without what all of them end with.

    "seed0" and "seed1" are seed0/circuit.json and seed1/circuit.json.
    """
    parts = {path: name.split("/") for path, name in short_names(paths).items()}
    while all(len(p) > 1 for p in parts.values()) and len({p[-1] for p in parts.values()}) == 1:
        parts = {path: p[:-1] for path, p in parts.items()}
    names = {path: "/".join(p) for path, p in parts.items()}
    suffixes = {Path(name).suffix for name in names.values()}
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    return {path: name.removesuffix(suffix) for path, name in names.items()}


def named_paths(paths: Sequence[str]) -> dict[str, str]:
    """Files and folders by what to call them.

    Raises:
        ValueError: one is named twice.
    """
    real = [os.path.realpath(path) for path in paths]
    for path, place in zip(paths, real, strict=True):
        if real.count(place) > 1:
            raise ValueError(f"{path} is named twice; name each once")
    names = file_names(paths)
    return {names[path]: path for path in paths}


def without_places(text: str) -> str:
    """A text in which a place on a disk is called by its name alone, and so is a quoted one."""

    def named(quoted: re.Match[str]) -> str:
        mark, inside = quoted.groups()
        return f"{mark}{without_places(inside)}{mark}"

    if Path(text).is_absolute():
        return model_name(text) or text
    return QUOTED.sub(named, text)


def unit_names(blocks: Iterable[HasHeads]) -> dict[str, str]:
    """What the units of a model are called, by kind: a group of one query head is a head."""
    shared = any(block.heads != block.kv_heads for block in blocks)
    group = "GQA groups" if shared else "attention heads"
    return {"group": group, "neuron": "MLP neurons", "block": "blocks"}


def _is_place(name: str) -> bool:
    """Whether it is a place on a disk: a name on the hub has one slash at most."""
    is_named = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name)
    return not is_named or Path(name).exists()


def _ends(path: str, parts: tuple[str, ...]) -> bool:
    return Path(path).parts[-len(parts) :] == parts
