"""Reading a Hugging Face folder with care: what does not fit is refused, not filled or left out."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_prune.analysis.checkpoint import CONFIG
from lightning_prune.export.stored import StoredTensors, check_checksums

__all__ = ["check_stored", "load"]


def load(
    folder: str | Path,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    verify: bool = True,
    **kwargs: Any,
) -> nn.Module:
    """Read a model from a Hugging Face folder with safetensors, in eval mode.

    Args:
        folder: a folder on this machine, as `save` writes it, or any stock one.
        dtype: of the weights; "auto" takes the one in the config.
        device: where to put the model.
        verify: compare the files with the checksums that `save` left in the folder.
        kwargs: handed on to `AutoModelForCausalLM.from_pretrained`.

    Raises:
        FileNotFoundError: no such folder, or a file is missing in it.
        ValueError: pickled weights only, a file that is damaged or not as it was saved, or tensors
            that do not fit the config, are missing, or are left over.
    """
    folder = Path(folder)
    kwargs = {"trust_remote_code": False, **kwargs}
    check_stored(folder, verify, kwargs.get("config"), kwargs["trust_remote_code"])
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


def check_stored(
    folder: Path, verify: bool = True, config: Any = None, trust_remote_code: bool = False
) -> StoredTensors:
    """The tensors of a folder, if they fit its config; no weight is read but for the checksums.

    Raises:
        FileNotFoundError: no such folder, or a file is missing in it.
        ValueError: pickled weights only, a file that is damaged or not as it was saved, or a tensor
            of another shape than the config asks for.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"no model at {str(folder)!r}: {folder / CONFIG} does not exist. Give the folder that "
            f"{CONFIG} lies in."
        )
    stored = StoredTensors(folder)
    config = deepcopy(config) or AutoConfig.from_pretrained(
        folder, trust_remote_code=trust_remote_code
    )
    if not hasattr(config, "quantization_config"):  # packed weights have shapes of their own
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        for name, tensor in model.state_dict().items():
            shape, asked = stored.shapes.get(name, tensor.shape), tuple(tensor.shape)
            if tuple(shape) != asked:
                raise ValueError(
                    f"{name} in {stored.paths[name]} has shape {tuple(shape)}, and {CONFIG} asks "
                    f"for {asked}. The two are not of the same model; save it again."
                )
    if verify:
        check_checksums(folder)
    return stored


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
