"""A model's weights as safetensors files, written one after the other while tensors come in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

from lightning_prune.checkpoints.names import INDEX, shard_name
from lightning_prune.files import save_tensors, write_json

__all__ = ["ShardWriter", "parse_size"]

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class ShardWriter:
    """Writes tensors into files of a limited size; never more than one file's are held.

    ```python
    with ShardWriter(folder, "5GB") as writer:
        for name in reader.info:
            writer.add(name, reader.tensor(name))
    ```

    Files have Hugging Face's names: `model.safetensors`, or `model-00001-of-0000N.safetensors` with
    an index. As N is known at the end, they have hidden names until then. If the block fails, none
    is left.

    Args:
        folder: where to; it must not have weights already.
        shard_size: the largest size of a file, in bytes or as "5GB". A tensor that is larger gets
            a file of its own.
        index: write an index also for one file: servers take any other safetensors file beside it
            for weights.
        metadata: what to say at the head of each file, beside {"format": "pt"}.

    Raises:
        ValueError: no such size, or the folder has weights.
    """

    def __init__(
        self,
        folder: str | Path,
        shard_size: int | str = "50GB",
        index: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._limit = parse_size(shard_size)
        self._index = index
        self._metadata = {**(metadata or {}), "format": "pt"}
        self._held: dict[str, torch.Tensor] = {}
        self._shard_of: dict[str, int] = {}
        self._files: list[Path] = []
        self._parameters = self._bytes = self._held_bytes = 0
        if old := sorted([*self._folder.glob("model*.safetensors"), *self._folder.glob(INDEX)]):
            raise ValueError(f"{self._folder} has weights already ({old[0].name})")

    def __enter__(self) -> ShardWriter:
        return self

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take the next tensor; it must not change before the writer is closed.

        A tensor that is tied to another is left out by the caller: what is written is not shared.

        Raises:
            ValueError: there was one of this name.
            OSError: the disk is full.
        """
        if name in self._shard_of:
            raise ValueError(f"{name} is written twice")
        if self._held and self._held_bytes + tensor.nbytes > self._limit:
            self._flush()
        tensor = tensor.detach().to("cpu").contiguous()
        if tensor.untyped_storage().nbytes() > tensor.nbytes:
            tensor = tensor.clone()  # a part of another would keep all of that in memory
        self._held[name] = tensor
        self._shard_of[name] = len(self._files)
        self._parameters += tensor.numel()
        self._bytes += tensor.nbytes
        self._held_bytes += tensor.nbytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what is left and the index; after an error, take away what was written."""
        finished = False
        try:
            if error is None:
                self._finish()
                finished = True
        finally:
            self._held.clear()
            for path in () if finished else self._files:
                path.unlink(missing_ok=True)

    def _flush(self) -> None:
        path = self._folder / f".model-{len(self._files) + 1:05d}.safetensors"
        save_tensors(path, self._held, self._metadata)
        self._files.append(path)
        self._held.clear()
        self._held_bytes = 0

    def _finish(self) -> None:
        if self._held or not self._files:
            self._flush()
        count = len(self._files)
        names = [shard_name(number, count) for number in range(1, count + 1)]
        for number, name in enumerate(names):
            os.replace(self._files[number], self._folder / name)
            self._files[number] = self._folder / name
        if self._index or count > 1:
            weight_map = {name: names[self._shard_of[name]] for name in sorted(self._shard_of)}
            size = {"total_parameters": self._parameters, "total_size": self._bytes}
            write_json(self._folder / INDEX, {"metadata": size, "weight_map": weight_map})


def parse_size(size: int | str) -> int:
    """Bytes of a size such as "5GB".

    Raises:
        ValueError: it is none.
    """
    if isinstance(size, int) and size > 0:
        return size
    match = re.fullmatch(r"([1-9]\d*)([KMGT]B)", str(size), re.IGNORECASE)
    if match is None:
        raise ValueError(f"shard_size={size!r} is not allowed: give a size such as 5GB or 500MB")
    return int(match[1]) * _UNITS[match[2].upper()]
