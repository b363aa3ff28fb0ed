"""The tensors of a model that is stored somewhere, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lightning_prune.checkpoints.names import weight_files

__all__ = ["DTYPES", "TensorInfo", "TensorReader"]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types of tensors, by safetensors' names of them."""


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is read.

    Attributes:
        shape: its sizes.
        dtype: of its numbers.
        path: the file that it is in; None: it is in memory.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    path: Path | None = None

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return torch.Size(self.shape).numel()

    @property
    def nbytes(self) -> int:
        """How many bytes its numbers take."""
        return self.numel * self.dtype.itemsize


class TensorReader:
    """The tensors of a model by name; each is read when it is asked for, and not kept.

    Every tensor is mapped into memory by itself, so that of a file only what is looked at is read,
    and what was read is given back with the tensor. Changing a tensor changes no file.

    Attributes:
        info: what is known of every tensor, by its name.

    Args:
        source: a Hugging Face folder, with one safetensors file or with shards and their index;
            one such file; or tensors in memory, such as a state dict.

    Raises:
        FileNotFoundError: there are no weights, or a shard is missing.
        ValueError: pickled weights only, a file that is damaged, or of a type that torch lacks.
    """

    def __init__(self, source: str | Path | Mapping[str, torch.Tensor]) -> None:
        self.info: dict[str, TensorInfo] = {}
        self._state: Mapping[str, torch.Tensor] = {}
        if isinstance(source, Mapping):
            self._state = source
            for name, tensor in source.items():
                self.info[name] = TensorInfo(tuple(tensor.shape), tensor.dtype)
            return
        path = Path(source)
        for file in weight_files(path) if path.is_dir() else [path]:
            self.info.update(_described(file))

    def tensor(self, name: str) -> torch.Tensor:
        """A whole tensor, on the CPU where it comes from a file.

        Raises:
            KeyError: there is none of this name.
            ValueError: its file was damaged or replaced since.
        """
        path = self.info[name].path
        if path is None:
            return self._state[name].detach()
        with _open(path) as file:
            try:
                tensor: torch.Tensor = file.get_tensor(name)
            except SafetensorError as error:
                raise _damaged(path, error, name) from error
        return tensor

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """The rows of a tensor from `start` up to `stop`; the others are not read.

        Raises:
            KeyError, ValueError: as `tensor`.
        """
        path = self.info[name].path
        if path is None:
            return self._state[name].detach()[start:stop]
        with _open(path) as file:
            try:
                rows: torch.Tensor = file.get_slice(name)[start:stop]
            except SafetensorError as error:
                raise _damaged(path, error, name) from error
        return rows


def _described(path: Path) -> Iterator[tuple[str, TensorInfo]]:
    with _open(path) as file:
        for name in file.keys():  # noqa: SIM118
            stored = file.get_slice(name)
            dtype = DTYPES.get(stored.get_dtype())
            if dtype is None:
                raise ValueError(
                    f"{name} in {path} is stored as {stored.get_dtype()}, which is not read; known "
                    f"are {', '.join(DTYPES)}"
                )
            yield name, TensorInfo(tuple(stored.get_shape()), dtype, path)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise _damaged(path, error, _first_cut(path)) from error


def _damaged(path: Path, error: Exception, name: str | None) -> ValueError:
    where = f"; {name} is not whole" if name else ""
    return ValueError(
        f"{path} is damaged, truncated or no safetensors file ({error}{where}). Save or download "
        "it again."
    )


def _first_cut(path: Path) -> str | None:
    """The first tensor whose end a truncated file lacks, if the file says which it has."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            header.pop("__metadata__", None)
            ends = {name: entry["data_offsets"][1] for name, entry in header.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
    cut = {end: name for name, end in ends.items() if 8 + length + end > path.stat().st_size}
    return cut[min(cut)] if cut else None
