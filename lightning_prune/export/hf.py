"""A model as a Hugging Face folder: stock if its blocks are alike, with its own code if not."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from pprint import pformat
from textwrap import indent
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_prune.anatomy import PRUNED_PREFIX, family_of
from lightning_prune.export import pruned_model
from lightning_prune.export.card import model_card
from lightning_prune.export.folder import replaced_folder
from lightning_prune.export.registry import layout_of, pruned_classes
from lightning_prune.plan import Plan

__all__ = ["load", "save"]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
CODE = "modeling_pruned"


def save(
    model: nn.Module, folder: str | Path, plan: Plan | None = None, tokenizer: Any = None
) -> Path:
    """Write a model as a Hugging Face folder, whole or not at all.

    Blocks that are alike give a stock folder. Blocks that differ give a folder with its own model
    code beside the weights, which loads with `trust_remote_code=True` anywhere, and without it
    where lightning_prune is imported.

    Args:
        model: a Hugging Face causal LM, pruned or not.
        folder: new, empty, or a model folder, which is replaced as a whole.
        plan: what was pruned; saved beside the model.
        tokenizer: the model's tokenizer; saved beside the model.

    Returns:
        The folder.

    Raises:
        ValueError: the model has adapters attached, or the folder holds something else.
        OSError: too little room on the disk; an older folder is left as it was.
    """
    folder = Path(folder)
    _refuse_adapters(model)
    tensors = model.state_dict().values()
    size = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
    uneven = model.config.model_type.startswith(PRUNED_PREFIX)  # type: ignore[union-attr, operator]
    with replaced_folder(folder, CONFIG, size) as new:
        model.save_pretrained(new)  # type: ignore[operator]
        if uneven:
            _add_code(model, new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        if plan is not None:
            plan.save(new)
            _add_index(new)
        card = model_card(model, plan, uneven)
        (new / "README.md").write_text(card, encoding="utf-8")
    return folder


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
        ValueError: pickled weights only, a damaged file, or tensors that do not fit the config.
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
    return (model if device is None else model.to(device)).eval()


# --- what save adds ---


def _refuse_adapters(model: nn.Module) -> None:
    for name, module in [("the model", model), *model.named_modules()]:
        if type(module).__module__.startswith("peft."):
            raise ValueError(
                f"{name} is a {type(module).__name__} of peft. Merge the adapters first: "
                "`model = model.merge_and_unload()`, then save."
            )


def _add_code(model: nn.Module, folder: Path) -> None:
    """Write the model code, and name its classes in the config for every Auto class."""
    base = model.config.model_type.removeprefix(PRUNED_PREFIX)  # type: ignore[union-attr, operator]
    names = [cls.__name__ for cls in pruned_classes(base)]
    layout = indent(pformat(layout_of(family_of(base)), width=90, sort_dicts=False), "    ")
    classes = f"\n\n{', '.join(names)} = make_classes(\n    {base!r},\n{layout},\n)\n"
    source = inspect.getsource(pruned_model) + classes
    (folder / f"{CODE}.py").write_text(source, encoding="utf-8")

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    autos = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    config["auto_map"] = {auto: f"{CODE}.{name}" for auto, name in zip(autos, names, strict=True)}
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _add_index(folder: Path) -> None:
    """Name the files that hold weights: servers would take plan.safetensors for one of them."""
    if (folder / INDEX).exists():
        return
    with safe_open(folder / WEIGHTS, "pt") as file:
        weight_map = dict.fromkeys(file.keys(), WEIGHTS)
    size = (folder / WEIGHTS).stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


# --- what load checks ---


def _stored_shapes(folder: Path) -> Iterator[tuple[str, tuple[Path, list[int]]]]:
    """Name, file and shape of every tensor in the folder, from the files' headers."""
    for path in _weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                yield from ((n, (path, file.get_slice(n).get_shape())) for n in file.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} is damaged or truncated ({error}). Save or download it again."
            ) from error


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        if pickled:
            raise ValueError(
                f"{folder} has its weights in {pickled[0]}, which is pickled and could run any "
                "code. Only safetensors are read: convert it in a place where you trust the file."
            )
        raise FileNotFoundError(f"{folder} has no weights: neither {WEIGHTS} nor {INDEX} is there")
    weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    files = [folder / name for name in sorted(set(weight_map.values()))]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is named in {INDEX} and does not exist")
    return files


_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl")


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
