"""Reading a Hugging Face folder with care: what does not fit is refused, not filled or left out."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn
from transformers import GenerationConfig

from lightning_prune.anatomy import check_unquantised
from lightning_prune.checkpoints.bundled import bundled_model
from lightning_prune.checkpoints.checksums import check_checksums
from lightning_prune.checkpoints.config import raw_config, read_config, reason_of
from lightning_prune.checkpoints.head import is_stored_apart, warn_of_own_head
from lightning_prune.checkpoints.mapped import map_weights
from lightning_prune.checkpoints.names import ADAPTER, CONFIG
from lightning_prune.checkpoints.reader import DTYPES, TensorReader
from lightning_prune.checks import check_choice
from lightning_prune.machine import free_memory
from lightning_prune.modeling.registry import auto_class

__all__ = ["PlacementName", "Stored", "check_stored", "load", "parse_dtype"]

PlacementName = Literal["memory", "checkpoint"]
"""Where a model's weights are: read into memory, or mapped from their files."""

GENERATION = "generation_config.json"
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Stored(NamedTuple):
    """What lies in a model folder.

    Attributes:
        reader: its tensors.
        config: its config, with `tie_word_embeddings` as the tensors have it.
        own_head: whether that differs from config.json, as another head is stored.
    """

    reader: TensorReader
    config: Any
    own_head: bool


def load(
    folder: str | Path,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    verify: bool = True,
    auto: Any = None,
    placement: PlacementName = "memory",
    changes: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Read a model from a Hugging Face folder with safetensors, in eval mode.

    A head that is stored beside other embeddings is kept, with a warning where the config says that
    the two are tied.

    Args:
        folder: a folder on this machine, as `save` writes it, or any stock one; or "quickstart".
        dtype: of the weights; "auto" takes the one in the config.
        device: where to put the model.
        verify: compare the files with the checksums that `save` left in the folder.
        auto: transformers' class for the kind of model to make of the weights; None: that of the
            model's family.
        placement: "memory": weights are read; "checkpoint": they stay in their files, which are
            mapped into memory, and what pruning changes is written to files too, block by block.
        changes: with placement="checkpoint", the folder for these files: new, or empty, and taken
            away with the model; None: one in the system's folder for temporary files.
        kwargs: handed on to its `from_pretrained`.

    Raises:
        FileNotFoundError: no such folder, or a file is missing in it.
        ValueError: pickled weights only, a file that is damaged or not as it was saved, an adapter
            beside the model, weights that are quantised, or tensors that do not fit the config,
            are missing, or are left over; they take more memory than is free; no such placement, or
            `changes` without one; or, with placement="checkpoint", another type than is stored, or
            something else in `changes`.
    """
    folder = bundled_model(folder) or Path(folder)
    parse_dtype(dtype)
    check_choice("placement", placement, get_args(PlacementName))
    if changes is not None and placement != "checkpoint":
        raise ValueError(
            f"changes={str(changes)!r} is for weights that stay in their files: give "
            "placement='checkpoint' with it, or leave it out"
        )
    kwargs = {"trust_remote_code": False, **kwargs}
    auto = auto or auto_class(str(raw_config(folder).get("model_type")))
    config = kwargs.get("config")
    stored = check_stored(folder, verify, config, kwargs["trust_remote_code"], auto)
    if stored.own_head:
        warn_of_own_head(folder)
        kwargs |= {"tie_word_embeddings": False} if config is None else {"config": stored.config}
    if getattr(stored.config, "attn_logit_softcapping", None):
        # Gemma 2: torch's fused attention does not cap, and transformers before 5.21 takes it.
        kwargs.setdefault("attn_implementation", "eager")
    if placement == "checkpoint":
        model = _mapped(folder, stored, auto, dtype, changes, **kwargs)
    else:
        if "device_map" not in kwargs:
            _check_room(folder, stored, parse_dtype(dtype))
        model = _read(folder, auto, dtype, **kwargs)
    placed: nn.Module = model if device is None else model.to(device)
    return placed.eval()


def _check_room(folder: Path, stored: Stored, dtype: torch.dtype | None) -> None:
    """Refuse weights that are read as another type, if they take more memory than there is.

    Those that are used as they are stored are mapped, and take memory as they are changed.
    """
    asked = dtype or stored.config.dtype
    size = sum(
        info.numel * asked.itemsize
        for info in stored.reader.info.values()
        if asked is not None and info.dtype.is_floating_point and info.dtype != asked
    )
    free = free_memory()
    if size > free:
        raise ValueError(
            f"the weights in {folder} take {size / 2**30:,.1f} GiB of memory as {asked}, and "
            f"{free / 2**30:,.1f} GiB are free. Leave them in their files, in the type that they "
            "are stored in: dtype='auto', placement='checkpoint' (--model.placement checkpoint)."
        )


def _read(folder: Path, auto: Any, dtype: str | torch.dtype, **kwargs: Any) -> nn.Module:
    """The model of a folder, all of it in memory."""
    try:
        model, keys = auto.from_pretrained(folder, dtype=dtype, output_loading_info=True, **kwargs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # as of generation_config
        raise _unloadable(folder, error) from error
    _check_keys(folder, type(model).__name__, keys["missing_keys"], keys["unexpected_keys"])
    whole: nn.Module = model
    return whole


def _mapped(
    folder: Path,
    stored: Stored,
    auto: Any,
    dtype: str | torch.dtype,
    changes: str | Path | None,
    **kwargs: Any,
) -> nn.Module:
    """The model of a folder, its weights mapped from their files."""
    config, reader = kwargs.pop("config", None) or stored.config, stored.reader
    kwargs.pop("revision", None)
    config.tie_word_embeddings = kwargs.pop("tie_word_embeddings", config.tie_word_embeddings)
    asked = parse_dtype(dtype) or config.dtype
    floats = (info.dtype for info in reader.info.values() if info.dtype.is_floating_point)
    try:
        with torch.device("meta"):
            model = auto.from_config(config, dtype=asked or next(floats), **kwargs)
        if (folder / GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unloadable(folder, error) from error
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    unexpected = reader.info.keys() - model.state_dict().keys()
    unexpected = {key for key in unexpected if not any(re.search(i, key) for i in ignored)}
    _check_keys(folder, type(model).__name__, (), unexpected)
    map_weights(model, reader, None if changes is None else Path(changes))
    whole: nn.Module = model
    return whole


def _unloadable(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"the model in {folder} cannot be loaded ({reason_of(error)}). Correct its files, or save "
        "or download it again."
    )


def _check_keys(folder: Path, kind: str, missing: Any, unexpected: Any) -> None:
    """Refuse weights that are not those of the model."""
    if missing:
        raise ValueError(
            f"the weights in {folder} lack {_some(missing)}, which {CONFIG} asks for. The folder "
            "is incomplete; save or download it again."
        )
    if unexpected:
        raise ValueError(
            f"the weights in {folder} have {_some(unexpected)}, which no module of {kind} takes: "
            "without them it would compute something else. Load it with the code that wrote it, or "
            "correct its config.json."
        )


def check_stored(
    folder: Path,
    verify: bool = True,
    config: Any = None,
    trust_remote_code: bool = False,
    auto: Any = None,
) -> Stored:
    """A folder's tensors and config, if they fit; weights are read for the checksums, and a head.

    Neither the config nor any code of a folder that was changed is used; weights, which take
    longest, are compared with their checksums when the rest is right.

    Raises:
        FileNotFoundError: no such folder, or a file is missing in it.
        ValueError: pickled weights only, a file that is damaged or not as it was saved, an adapter
            beside the model, weights that are quantised, or a tensor of another shape or kind than
            the config asks for.
    """
    check_unquantised(f"the model in {folder}", raw_config(folder))
    reader = TensorReader(folder)
    if verify:
        check_checksums(folder, weights=False)
    if (folder / ADAPTER).is_file():
        raise ValueError(
            f"{folder} has an adapter beside the model ({ADAPTER}), which transformers would add "
            "to it. Merge it into the model, or move its files to another folder."
        )
    config = deepcopy(config) or read_config(folder, trust_remote_code=trust_remote_code)
    model = _checked_fit(reader, config, folder, trust_remote_code, auto)
    if verify:
        check_checksums(folder)
    own_head = getattr(config, "tie_word_embeddings", False) and is_stored_apart(reader, model)
    if own_head:
        config.tie_word_embeddings = False
    return Stored(reader, config, own_head)


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The type that weights are to have; None for "auto".

    Raises:
        ValueError: it is neither "auto" nor one of torch's floating-point types.
    """
    if dtype == "auto":
        return None
    parsed = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if parsed not in FLOATS:
        names = [str(known).removeprefix("torch.") for known in FLOATS]
        check_choice("dtype", dtype, ["auto", *names])
    return parsed


def _checked_fit(
    reader: TensorReader, config: Any, folder: Path, trust_remote_code: bool, auto: Any
) -> nn.Module:
    """The model of a config, without its weights, if those that are stored fit it."""
    try:
        with torch.device("meta"):
            kind = auto or auto_class(config.model_type)
            model: nn.Module = kind.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # what transformers raises depends on the key
        raise ValueError(
            f"no model can be made from {folder / CONFIG} ({reason_of(error)}). Correct it, or "
            "save or download it again."
        ) from error
    stored_as = {dtype: name for name, dtype in DTYPES.items()}
    for name, tensor in model.state_dict().items():
        if name not in reader.info:
            continue
        stored, asked = reader.info[name], tuple(tensor.shape)
        if stored.shape != asked:
            raise ValueError(
                f"{name} in {stored.path} has shape {stored.shape}, and {CONFIG} asks for {asked}. "
                "The two are not of the same model; save it again."
            )
        if tensor.is_floating_point() and stored.dtype not in FLOATS:
            raise ValueError(
                f"{name} in {stored.path} is stored as {stored_as[stored.dtype]}, and the model "
                f"computes with {', '.join(map(stored_as.__getitem__, FLOATS))}. Save it again."
            )
    return model


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
