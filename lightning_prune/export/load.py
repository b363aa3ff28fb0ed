"""Reading a Hugging Face folder with care: what does not fit is refused, not filled or left out."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_prune.analysis.checkpoint import CONFIG, weight_files

__all__ = ["load"]


def load(
    folder: str | Path,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Read a model from a Hugging Face folder with safetensors, in eval mode.

    Args:
        folder: a folder on this machine, as `save` writes it, or any stock one.
        dtype: of the weights; "auto" takes the one in the config.
        device: where to put the model.
        kwargs: handed on to `AutoModelForCausalLM.from_pretrained`.

    Raises:
        FileNotFoundError: no such folder, or a file is missing in it.
        ValueError: pickled weights only, a damaged file, or tensors that do not fit the config, are
            missing, or are left over.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"no model at {str(folder)!r}: {folder / CONFIG} does not exist. Give the folder that "
            f"{CONFIG} lies in."
        )
    shapes = dict(_stored_shapes(folder))
    kwargs = {"trust_remote_code": False, **kwargs}
    _check_shapes(shapes, folder, kwargs.get("config"), kwargs["trust_remote_code"])
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, **kwargs
    )
    model, found = loaded
    if found["missing_keys"]:
        raise ValueError(
            f"the weights in {folder} lack {_some(found['missing_keys'])}, which {CONFIG} asks "
            "for. The folder is incomplete; save or download it again."
        )
    if found["unexpected_keys"] and not hasattr(model.config, "quantization_config"):
        raise ValueError(
            f"the weights in {folder} have {_some(found['unexpected_keys'])}, which no module of "
            f"{type(model).__name__} takes: without them it would compute something else. Load it "
            "with the code that wrote it, or correct its config.json."
        )
    return (model if device is None else model.to(device)).eval()


def _stored_shapes(folder: Path) -> Iterator[tuple[str, tuple[Path, list[int]]]]:
    """Name, file and shape of every tensor in the folder, from the files' headers."""
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                yield from ((n, (path, file.get_slice(n).get_shape())) for n in file.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} is damaged or truncated ({error}). Save or download it again."
            ) from error


def _check_shapes(
    shapes: dict[str, tuple[Path, list[int]]], folder: Path, given: Any, trust_remote_code: bool
) -> None:
    """Compare the stored shapes with those of an empty model, before any weight is read."""
    config = deepcopy(given) or AutoConfig.from_pretrained(
        folder, trust_remote_code=trust_remote_code
    )
    if hasattr(config, "quantization_config"):  # packed weights have shapes of their own
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    for name, tensor in model.state_dict().items():
        path, shape = shapes.get(name, (None, list(tensor.shape)))
        if shape != list(tensor.shape):
            raise ValueError(
                f"{name} in {path} has shape {tuple(shape)}, and {CONFIG} asks for "
                f"{tuple(tensor.shape)}. The two are not of the same model; save it again."
            )


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
