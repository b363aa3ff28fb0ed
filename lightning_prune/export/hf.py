"""A model as a Hugging Face folder with a model card, and such a folder as another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.checkpoints.config import read_tokenizer, reason_of
from lightning_prune.checkpoints.folder import check_replaceable
from lightning_prune.checkpoints.load import check_stored, load, parse_dtype
from lightning_prune.checkpoints.names import CARD, PROCESSOR, REPORT
from lightning_prune.checkpoints.save import refuse_adapters, save_folder
from lightning_prune.checkpoints.writer import parse_size
from lightning_prune.export.card import model_card
from lightning_prune.plan import Plan
from lightning_prune.report.report import Report

__all__ = ["save", "to_hf"]


def save(
    model: nn.Module,
    folder: str | Path,
    plan: Plan | None = None,
    tokenizer: Any = None,
    report: Report | None = None,
    shard_size: int | str = "50GB",
    processor: Any = None,
) -> Path:
    """Write a model as a Hugging Face folder, whole or not at all.

    Blocks that are alike give a stock folder. Blocks that differ give a folder with its own model
    code beside the weights, which loads with `trust_remote_code=True` anywhere, and without it
    where lightning_prune is imported.

    Args:
        model: a Hugging Face causal LM or image classifier, pruned or not.
        folder: new, empty, or a model folder, which is replaced as a whole.
        plan: what was pruned; saved beside the model.
        tokenizer: the model's tokenizer; saved beside the model.
        report: what was measured; saved beside the model, without the run's paths.
        shard_size: the largest size of a file of weights, in bytes or as "5GB".
        processor: the image processor of a model that reads images; saved beside the model.

    Returns:
        The folder.

    Raises:
        ValueError: it is no Hugging Face model, or has adapters attached, the folder holds
            something else, or no size.
        OSError: too little room on the disk; an older folder is left as it was.
    """
    if not hasattr(getattr(model, "config", None), "model_type"):
        raise ValueError(
            f"{type(model).__name__} is no Hugging Face model, and only these are saved as "
            "folders: it has no config with a model_type"
        )
    refuse_adapters(model)
    texts = _texts(model, plan, report)
    if processor is not None:
        texts[PROCESSOR] = processor.to_json_string()
    return save_folder(model, folder, plan, tokenizer, texts, shard_size)


def to_hf(
    folder: str | Path,
    out: str | Path,
    dtype: str | torch.dtype = "auto",
    shard_size: int | str = "50GB",
    verify: bool = True,
) -> Path:
    """Write a saved model as another folder: in another dtype, in smaller files, with fresh code.

    Plan, tokenizer and report go with it. Weights are mapped into memory and written one file at a
    time, so that the model need not fit there.

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
    check_replaceable(out)
    cast = parse_dtype(dtype)
    parse_size(shard_size)
    check_stored(folder, verify)
    plan = Plan.load(folder) if (folder / "plan.json").is_file() else None
    tokenizer, report = read_tokenizer(folder), _read_report(folder / REPORT)
    model = load(folder, verify=False)
    texts = _texts(model, plan, report, cast)
    if (processor := folder / PROCESSOR).is_file():
        texts[PROCESSOR] = processor.read_text(encoding="utf-8")
    return save_folder(model, out, plan, tokenizer, texts, shard_size, cast)


def _texts(
    model: nn.Module, plan: Plan | None, report: Report | None, dtype: torch.dtype | None = None
) -> dict[str, str]:
    """The card and the report of a model, by the names of their files."""
    card = model_card(model, plan, report, dtype or next(model.parameters()).dtype)
    reports = {} if report is None else {REPORT: replace(report, files={}).to_json()}
    return {CARD: card, **reports}


def _read_report(path: Path) -> Report | None:
    if not path.is_file():
        return None
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({reason_of(error)}). Take it away, or put it back as it was."
        ) from error
