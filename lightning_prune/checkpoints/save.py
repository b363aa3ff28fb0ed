"""Writing a model as a Hugging Face folder: stock if its blocks are alike, with its code if not."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

import torch
from torch import nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from lightning_prune.anatomy import PRUNED_PREFIX
from lightning_prune.checkpoints.checksums import write_checksums
from lightning_prune.checkpoints.config import raw_config
from lightning_prune.checkpoints.folder import replaced_folder
from lightning_prune.checkpoints.head import config_follows
from lightning_prune.checkpoints.names import CODE, CONFIG
from lightning_prune.checkpoints.writer import ShardWriter, parse_size
from lightning_prune.modeling import modeling_pruned
from lightning_prune.modeling.registry import pruned_classes, registered_layout
from lightning_prune.plan import Plan

__all__ = ["is_uneven", "refuse_adapters", "save_folder"]


def save_folder(
    model: nn.Module,
    folder: str | Path,
    plan: Plan | None = None,
    tokenizer: Any = None,
    texts: Mapping[str, str] | None = None,
    shard_size: int | str = "50GB",
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model as a Hugging Face folder, whole or not at all.

    Besides the model and what goes with it no more is held than one file of weights.

    Args:
        model: a Hugging Face model, pruned or not.
        folder: new, empty, or a model folder, which is replaced as a whole.
        plan: what was pruned; saved beside the model.
        tokenizer: the model's tokenizer; saved beside the model.
        texts: what else lies beside the model, by the name of its file: a card, a report.
        shard_size: the largest size of a file of weights, in bytes or as "5GB".
        dtype: what the weights are written as; None: as they are.

    Returns:
        The folder.

    Raises:
        ValueError: the model has adapters attached, the folder holds something else, or no size.
        OSError: too little room on the disk; an older folder is left as it was.
    """
    folder = Path(folder)
    parse_size(shard_size)
    refuse_adapters(model)
    state, metadata = _state(model)
    size = sum(tensor.numel() * (dtype or tensor.dtype).itemsize for tensor in state.values())
    with replaced_folder(folder, size) as new:
        _add_config(model, new, dtype)
        with ShardWriter(new, shard_size, index=plan is not None, metadata=metadata) as writer:
            for name, tensor in state.items():
                cast = dtype is not None and tensor.is_floating_point()
                writer.add(name, tensor.to(dtype) if cast else tensor)
        if is_uneven(model):
            _add_code(model, new)
        if tokenizer is not None:
            _add_tokenizer(tokenizer, new)
        if plan is not None:
            plan.save(new)
        for name, text in (texts or {}).items():
            (new / name).write_text(text, encoding="utf-8")
        write_checksums(new)
    return folder


def is_uneven(model: nn.Module) -> bool:
    """Whether a model needs a class of its own, and so a folder that brings its code."""
    return model.config.model_type.startswith(PRUNED_PREFIX)  # type: ignore[union-attr, operator]


def refuse_adapters(model: nn.Module) -> None:
    """Refuse a model that has adapters attached: what is saved is the plain model.

    Raises:
        ValueError: it has.
    """
    for name, module in [("the model", model), *model.named_modules()]:
        if type(module).__module__.startswith("peft."):
            raise ValueError(
                f"{name} is a {type(module).__name__} of peft. Merge the adapters first: "
                "`model = model.merge_and_unload()`, then save."
            )


def _state(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What is stored of a model, each tensor once, and what the files say of it."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_serializable():
        raise ValueError(
            f"weights that are packed as by {type(quantizer).__name__} cannot be saved. Save the "
            "model from before."
        )
    state, metadata = quantizer.get_state_dict_and_metadata(model) if quantizer else (None, {})
    state = dict(model.state_dict() if state is None else state)
    for name in model._keys_to_ignore_on_save or ():
        state.pop(name, None)
    state = remove_tied_weights_from_state_dict(state, model)
    return revert_weight_conversion(model, state), metadata


def _add_config(model: Any, folder: Path, dtype: torch.dtype | None) -> None:
    """Write config and generation config, and the code of a class that came with the model."""
    config_follows(model)
    config = model.config
    config.dtype = str(dtype or model.dtype).removeprefix("torch.")
    config.architectures = [type(model).__name__]
    if model.is_remote_code():
        custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _add_code(model: nn.Module, folder: Path) -> None:
    """Write the model code, and name its classes in the config for every Auto class."""
    base = model.config.model_type.removeprefix(PRUNED_PREFIX)  # type: ignore[union-attr, operator]
    names = [cls.__name__ for cls in pruned_classes(base)]
    layout = registered_layout(base)
    classes = (
        f"\n\nLAYOUT = {pformat(layout, width=90, sort_dicts=False)}\n"
        f"{names[0]} = make_config({base!r}, LAYOUT)\n"
        f"{names[1]}, {names[2]} = make_models({base!r}, LAYOUT, {names[0]})\n"
    )
    source = inspect.getsource(modeling_pruned) + classes
    (folder / CODE).write_text(source, encoding="utf-8")

    config = raw_config(folder)
    autos = ("AutoConfig", "AutoModel", layout.auto_class)
    module = CODE.removesuffix(".py")
    config["auto_map"] = {auto: f"{module}.{name}" for auto, name in zip(autos, names, strict=True)}
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _add_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer, under names that transformers 4.57 knows as well as 5.x."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):  # a mapping in 4.57
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
