"""A model whose weights are files, mapped into memory, and whose changed weights become files too.

What is read of a mapped tensor is the file's pages, which the system takes back when it needs the
room; processes on one machine share them. A change makes a page the process's own. So memory holds
what is being worked on: when that is done, `WeightFiles.settle` writes what was changed to a file
of its own, and maps all of it anew.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_prune import distributed
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.files import save_tensors
from lightning_prune.machine import give_back

__all__ = ["WeightFiles", "files_of", "map_weights"]

OURS = r"(changed-|\.changed-).*"
"""Names of the files that are written here, also while they are."""


class _Place(NamedTuple):
    """Where a parameter's numbers are.

    Attributes:
        reader: of the files that hold it.
        name: of the tensor there.
        changes: the file of changes that it is in; None: it is as it was loaded.
    """

    reader: TensorReader
    name: str
    changes: Path | None


class WeightFiles:
    """The files that hold the weights of one mapped model.

    Args:
        changes: folder for the weights that are changed; made, and taken away with the model; what
            an earlier process has left there is removed. None: one in the system's folder for
            temporary files.

    Raises:
        ValueError: the folder holds something else.
    """

    def __init__(self, changes: Path | None = None) -> None:
        self.changes, self._mark = distributed.once(lambda: _begun(changes))
        self._places: Any = WeakTensorKeyDictionary()
        self._written: set[Path] = set()
        self._count = 0

    def map(self, parameter: torch.Tensor, reader: TensorReader, name: str) -> None:
        """Note where a parameter's numbers are, and map them."""
        self._put(parameter, _Place(reader, name, None))

    def versions(self, tensors: Mapping[str, torch.Tensor]) -> dict[int, int]:
        """What `settle` compares with, before something may be changed."""
        return {id(tensor): tensor._version for tensor in tensors.values()}

    def settle(
        self, label: str, tensors: Mapping[str, torch.Tensor], before: Mapping[int, int]
    ) -> None:
        """Write what has been changed in a part of the model, and give its memory back.

        Every process calls it, with the same changes; process 0 writes.

        Args:
            label: of the part, for the name of its file.
            tensors: the part's parameters, by their names in the model.
            before: `versions` before they may have been changed.

        Raises:
            OSError: the disk is full; the weights stay in memory, as they have become.
        """
        known = {name: self._places.get(tensor) for name, tensor in tensors.items()}
        changed = {
            name
            for name, tensor in tensors.items()
            if known[name] is None or before.get(id(tensor)) != tensor._version
        }
        if changed:
            older = {name for name, place in known.items() if place and place.changes}
            written = {name: tensors[name].detach() for name in sorted(changed | older)}
            self._count += 1
            path = self.changes / f"changed-{self._mark}-{self._count}-{label}.safetensors"
            distributed.once(lambda: _save(path, written))
            reader = TensorReader(path)
            known |= {name: _Place(reader, name, path) for name in written}
            del written
        for name, tensor in tensors.items():
            self._put(tensor, known[name])
        give_back()
        if changed:
            self._written.add(path)
            unused = self._written - {place.changes for place in self._places.values()}
            distributed.once(lambda: _unlink(unused))
            self._written -= unused

    def removal(self) -> Callable[[], None]:
        """What takes the files of changes away, and holds nothing that it is about."""
        return partial(_remove, self.changes, self._mark)

    def _put(self, parameter: torch.Tensor, place: _Place) -> None:
        self._places[parameter] = place
        parameter.data = place.reader.tensor(place.name)


_FILES: weakref.WeakKeyDictionary[nn.Module, WeightFiles] = weakref.WeakKeyDictionary()
"""By model, where its weights are; a copy of a model is in memory, and not here."""


def _begun(changes: Path | None) -> tuple[Path, str]:
    """A folder for changes without those of an earlier process, and a mark for names of new ones.

    Raises:
        ValueError: there is something else in it; nothing is removed then.
    """
    mark = uuid4().hex[:8]
    if changes is None:
        return Path(tempfile.mkdtemp(prefix="weights-")), mark
    if changes.exists() and not changes.is_dir():
        raise ValueError(f"changes={str(changes)!r} is a file; give the name of a folder")
    changes.mkdir(parents=True, exist_ok=True)
    others = [path for path in changes.iterdir() if not re.fullmatch(OURS, path.name)]
    if others:
        raise ValueError(
            f"{changes} is the folder for the weights that pruning changes, and holds something "
            f"else ({others[0].name}): give changes a folder that is new, or empty"
        )
    for path in changes.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return changes, mark


def _unlink(files: Iterable[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _remove(changes: Path, mark: str) -> None:
    """Take files of changes away, and their folder if there is nothing else in it."""
    with suppress(OSError):
        _unlink(changes.glob(f"*changed-{mark}-*"))
        changes.rmdir()


def _save(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def files_of(model: nn.Module) -> WeightFiles | None:
    """The files that a model's weights are; None: they are in memory."""
    return _FILES.get(model)


def map_weights(model: Any, reader: TensorReader, changes: Path | None = None) -> None:
    """Give a model on the meta device its weights, mapped from their files.

    Args:
        model: a Hugging Face model without weights.
        reader: of its folder.
        changes: as of `WeightFiles`.

    Raises:
        ValueError: the stored names, or types, are not those of the model.
    """
    _check(model, reader)
    files = WeightFiles(changes)
    state = {name: reader.tensor(name) for name in model.state_dict() if name in reader.info}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in reader.info:
            files.map(tensor, reader, name)
            tensor._is_hf_initialized = True
    _make_buffers(model)
    _FILES[model] = files
    if distributed.rank() == 0:
        weakref.finalize(model, files.removal())


def _check(model: Any, reader: TensorReader) -> None:
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    for name, tensor in model.state_dict().items():
        if name not in reader.info:
            if name in tied:
                continue
            raise ValueError(
                f"{name} is not stored under this name, and placement='checkpoint' maps what is "
                "stored, as it is. Load the model with placement='memory' and save it once; or "
                "prune it so, if it fits."
            )
        if reader.info[name].dtype != tensor.dtype:
            raise ValueError(
                f"{name} is stored as {reader.info[name].dtype}, and {tensor.dtype} is asked for; "
                "placement='checkpoint' maps what is stored, as it is. Leave dtype out, or convert "
                "the folder first: lightning-prune export --to hf --dtype ..."
            )


def _make_buffers(model: Any) -> None:
    """Make what is computed, such as rotary tables, and not stored."""
    for module in model.modules():
        unstored = module._non_persistent_buffers_set
        if not unstored:
            continue
        for name in unstored:
            buffer = getattr(module, name)
            if buffer is not None:
                setattr(module, name, torch.empty_like(buffer, device="cpu"))
        model._init_weights(module)  # as from_pretrained does
