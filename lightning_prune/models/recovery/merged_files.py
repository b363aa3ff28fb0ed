"""A sharded model merged into files: no process holds more of it than a layer and a file."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.checkpoints.writer import ShardWriter
from lightning_prune.files import hidden_name
from lightning_prune.models.recovery.student import Model, plain

__all__ = ["merged_in_files", "whole"]

FILE = 2**28
"""Bytes of a file, which are held until it is written."""

State = Mapping[str, torch.Tensor]


def merged_in_files(
    model: Model, structure: Model | None, root: str | Path
) -> PreTrainedModel | None:
    """A plain model, adapter merged, whose weights are mapped from files; in process 0.

    The files have no name by then, and are gone with the model. Every process calls it.

    Args:
        model: sharded; it is left as it is.
        structure: the model without weights and shards, in process 0.
        root: the folder to write in, hidden.

    Raises:
        ValueError: a merged weight is not finite.
        OSError: the disk is full.
    """
    parts, error = _parts(plain(model)), None
    folder = Path(root)
    try:
        if structure is not None:
            folder = hidden_name(folder / "merged", "tmp")
            folder.mkdir(parents=True)
            _write(parts, plain(structure), folder)
    except Exception as caught:
        error = caught
    for _ in parts:  # what one process gathers, all do
        pass
    try:
        return distributed.together(lambda: _mapped(structure, folder, error))
    finally:
        if structure is not None:
            shutil.rmtree(folder, ignore_errors=True)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, where each process may have a part."""
    if not tensor.numel():  # torch cannot gather these, of an attention or MLP taken out
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def _parts(model: PreTrainedModel) -> Iterator[tuple[str, State]]:
    """What is merged together: the path of a layer with an adapter, and its tensors; all others.

    Of the others one at a time, without a path, by its name in the model. What is tied comes once.
    """
    modules = dict(model.named_modules())
    layers = [path for path, module in modules.items() if isinstance(module, LoraLayer)]
    for path in layers:
        yield path, {name: whole(tensor) for name, tensor in modules[path].state_dict().items()}
    inside, seen = tuple(f"{path}." for path in layers), set[int]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not name.startswith(inside) and id(tensor) not in seen:
            seen.add(id(tensor))
            yield "", {name: whole(tensor)}


def _write(parts: Iterator[tuple[str, State]], structure: PreTrainedModel, folder: Path) -> None:
    with ShardWriter(folder, FILE) as writer:
        for path, state in parts:
            state = {name: tensor.detach().cpu() for name, tensor in state.items()}
            merged = _merged(structure.get_submodule(path), state, f"{path}.") if path else state
            for name, tensor in merged.items():
                writer.add(name, tensor)


def _merged(layer: nn.Module, state: State, prefix: str) -> State:
    """The Linear behind an adapter, as peft merges it.

    Args:
        layer: without weights; left as it is.
        state: its weights.
        prefix: of the names in the model.
    """
    layer = copy.deepcopy(layer)
    assert isinstance(layer, LoraLayer)
    layer.load_state_dict(state, assign=True)
    layer.merge(safe_merge=True)
    return {f"{prefix}{name}": t for name, t in layer.get_base_layer().state_dict().items()}


def _mapped(
    structure: Model | None, folder: Path, error: Exception | None
) -> PreTrainedModel | None:
    """The model of what was written, if it was."""
    if error is not None:
        raise error
    if structure is None:
        return None
    reader = TensorReader(folder)
    model = structure.unload() if isinstance(structure, PeftModel) else structure
    assert isinstance(model, PreTrainedModel)
    state = {name: reader.tensor(name) for name in reader.info}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    return model.cpu()
