"""A model as a Hugging Face folder: stock if its blocks are alike, with its own code if not."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from pprint import pformat
from textwrap import indent
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from lightning_prune.analysis.checkpoint import CONFIG, INDEX, WEIGHTS
from lightning_prune.anatomy import PRUNED_PREFIX, family_of
from lightning_prune.export import pruned_model
from lightning_prune.export.card import model_card
from lightning_prune.export.folder import check_replaceable, replaced_folder
from lightning_prune.export.load import check_dtype, check_stored, load
from lightning_prune.export.reading import read_tokenizer, reason_of
from lightning_prune.export.registry import layout_of, pruned_classes
from lightning_prune.export.stored import write_checksums
from lightning_prune.plan import Plan
from lightning_prune.report.report import Report

__all__ = ["check_folder", "save", "to_hf"]

CODE = "modeling_pruned"


def check_folder(folder: str | Path) -> None:
    """Refuse, early, a folder that `save` would refuse.

    Raises:
        ValueError: it holds something else than a model.
    """
    check_replaceable(Path(folder))


def save(
    model: nn.Module,
    folder: str | Path,
    plan: Plan | None = None,
    tokenizer: Any = None,
    report: Report | None = None,
    shard_size: int | str = "50GB",
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
        report: what was measured; saved beside the model, without the run's paths.
        shard_size: the largest size of a file of weights, in bytes or as "5GB".

    Returns:
        The folder.

    Raises:
        ValueError: the model has adapters attached, the folder holds something else, or no size.
        OSError: too little room on the disk; an older folder is left as it was.
    """
    folder = Path(folder)
    _check_shard_size(shard_size)
    _refuse_adapters(model)
    tensors = model.state_dict().values()
    size = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
    uneven = model.config.model_type.startswith(PRUNED_PREFIX)  # type: ignore[union-attr, operator]
    with replaced_folder(folder, size) as new:
        model.save_pretrained(new, max_shard_size=shard_size)  # type: ignore[operator]
        if uneven:
            _add_code(model, new)
        if tokenizer is not None:
            _add_tokenizer(tokenizer, new)
        if plan is not None:
            plan.save(new)
            _add_index(new)
        if report is not None:
            text = replace(report, files={}).to_json()
            (new / "report.json").write_text(text, encoding="utf-8")
        card = model_card(model, plan, uneven, report)
        (new / "README.md").write_text(card, encoding="utf-8")
        write_checksums(new)
    return folder


def to_hf(
    folder: str | Path,
    out: str | Path,
    dtype: str | torch.dtype = "auto",
    shard_size: int | str = "50GB",
    verify: bool = True,
) -> Path:
    """Write a saved model as another folder: in another dtype, in smaller files, with fresh code.

    Plan, tokenizer and report go with it.

    Args:
        folder: a Hugging Face folder with safetensors, ours or stock.
        out: as in `save`.
        dtype: of the weights; "auto" keeps theirs.
        shard_size: as in `save`.
        verify: as in `load`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: as of `load` and `save`.
        OSError: too little room on the disk.
    """
    folder = Path(folder)
    check_folder(out)
    check_dtype(dtype)
    _check_shard_size(shard_size)
    check_stored(folder, verify)
    plan = Plan.load(folder) if (folder / "plan.json").is_file() else None
    tokenizer, report = read_tokenizer(folder), _read_report(folder / "report.json")
    model = load(folder, dtype, verify=False)
    return save(model, out, plan, tokenizer, report, shard_size)


def _read_report(path: Path) -> Report | None:
    if not path.is_file():
        return None
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({reason_of(error)}). Take it away, or put it back as it was."
        ) from error


# --- what save adds ---


def _check_shard_size(size: int | str) -> None:
    number = r"[1-9]\d*[KMGT]B"
    if not (re.fullmatch(number, size, re.IGNORECASE) if isinstance(size, str) else size > 0):
        raise ValueError(f"shard_size={size!r} is not allowed: give a size such as 5GB or 500MB")


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


def _add_index(folder: Path) -> None:
    """Name the files that hold weights: servers would take plan.safetensors for one of them."""
    if (folder / INDEX).exists():
        return
    with safe_open(folder / WEIGHTS, "pt") as file:
        weight_map = dict.fromkeys(file.keys(), WEIGHTS)
    size = (folder / WEIGHTS).stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
