"""What observers measure: on which windows, of which stage, of which blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from lightning_prune.anatomy import Anatomy, family_of
from lightning_prune.data.judged import JudgedText
from lightning_prune.data.loaders import ShardSampler
from lightning_prune.evaluation import (
    Classified,
    Speed,
    TextPerplexity,
    classify,
    generation_speed,
    perplexity,
    tokens_per_second,
)
from lightning_prune.models.module import PrunableModule
from lightning_prune.report.report import BlockShape, StageMetrics

__all__ = [
    "Batch",
    "block_shapes",
    "decoding",
    "device_name",
    "first_windows",
    "members",
    "stage_metrics",
    "text_perplexity",
    "validation_batches",
]

Batch = Mapping[str, torch.Tensor]

NEW_TOKENS, RUNS = 16, 3


def stage_metrics(
    model: nn.Module,
    batches: Sequence[Batch],
    windows: int | None,
    device: torch.device,
    speed: bool,
) -> tuple[StageMetrics, Classified | None]:
    """What one stage of a run comes to, and what a classifier of images says of each.

    Args:
        model: as it is at that stage.
        batches: of the validation text, or images.
        windows: perplexity, or accuracy, is of so many of them at most; None: of all.
        device: where to run.
        speed: whether to time a forward pass over the first batch.
    """
    parameters = list(model.parameters())
    judged = first_windows(batches, windows)
    classifies = Anatomy(model).task.judged_by == "accuracy"
    classified = classify(model, judged, device) if judged and classifies else None
    metrics = StageMetrics(
        perplexity=perplexity(model, judged, device) if judged and not classifies else None,
        accuracy=classified.accuracy if classified else None,
        top5=classified.top5 if classified else None,
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(p.count_nonzero()) for p in parameters),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
        tokens_per_second=tokens_per_second(model, batches[0], device)
        if speed and batches
        else None,
    )
    return metrics, classified


def text_perplexity(
    model: nn.Module, text: JudgedText, batch_size: int, device: torch.device
) -> TextPerplexity:
    """The perplexity of a text that was cut into windows."""
    return TextPerplexity(
        text=text.source,
        split=text.part,
        length=text.length,
        windows=len(text.windows),
        perplexity=perplexity(model, text.batches(batch_size), device),
        tokens=text.fingerprint,
        begin=text.begin,
    )


def first_windows(batches: Sequence[Batch], windows: int | None) -> list[Batch]:
    """The first windows of all batches; None: all of them."""
    if windows is None:
        return list(batches)
    taken: list[Batch] = []
    for batch in batches:
        if windows > 0:
            taken.append({name: tensor[:windows] for name, tensor in batch.items()})
            windows -= members(taken[-1:])
    return taken


def members(batches: Iterable[Batch]) -> int:
    """How many windows, or images, batches have."""
    return sum(len(next(iter(batch.values()))) for batch in batches)


def device_name(device: torch.device) -> str:
    """What a reader of figures knows it by."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def decoding(model: Any, length: int, device: torch.device) -> list[Speed]:
    """The speed of generation after a prompt as long as a window; nothing if it does not fit."""
    room = model.config.max_position_embeddings - NEW_TOKENS
    try:
        prompt = max(1, min(length, room))
        speed = generation_speed(model, device, prompt=prompt, new_tokens=NEW_TOKENS, runs=RUNS)
        # On a CPU that is the memory of the whole run, with all that it holds.
        return [speed if device.type == "cuda" else replace(speed, peak_bytes=None)]
    except torch.cuda.OutOfMemoryError:
        return []


def validation_batches(trainer: Trainer) -> list[Batch]:
    """The validation windows, or images, whatever share of them this process validates on."""
    # Where a datamodule, the module itself, or loaders that were given to `fit` are all the same.
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    if not source.is_defined():
        return []
    with isolate_rng():  # measuring does not change what is drawn in training
        loaders = CombinedLoader(source.dataloader(), "sequential").flattened
        return [batch for loader in loaders for batch in _batches(loader, trainer)]


def _batches(loader: Iterable[Any], trainer: Trainer) -> list[Batch]:
    """As many batches as the Trainer validates on: a number in each process, or a share of all."""
    if isinstance(getattr(loader, "sampler", None), (DistributedSampler, ShardSampler)):
        assert isinstance(loader, DataLoader)
        loader = DataLoader(
            loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn
        )
    module = trainer.lightning_module
    assert isinstance(module, PrunableModule)
    needed = family_of(module.base.config.model_type).task.windows_of  # adapters may be attached
    batches = (batch for batch in loader if isinstance(batch, Mapping) and needed in batch)
    limit = trainer.limit_val_batches
    if limit and isinstance(limit, int):
        return list(islice(batches, limit * trainer.world_size))
    every = list(batches)
    return every[: int(len(every) * (limit or 1))]


def block_shapes(model: nn.Module, before: list[BlockShape], gone: set[int]) -> list[BlockShape]:
    """What the blocks are now, beside what they were in the first place, as `before` knows it.

    Blocks that were taken out since, of those in `gone`, have nothing any more.
    """
    blocks = Anatomy(model).blocks
    dense = [(b.index, (b.dense_heads, b.dense_kv_heads, b.dense_width)) for b in before]
    if not before:
        indices = (i for i in range(len(blocks) + len(gone)) if i not in gone)
        dense = [(i, (b.heads, b.kv_heads, b.width)) for i, b in zip(indices, blocks, strict=True)]
    left, shapes = iter(blocks), []
    for index, counts in dense:
        block = None if index in gone else next(left)
        now = (block.heads, block.kv_heads, block.width) if block else (0, 0, 0)
        sparsity = {
            site.table.path: float((site.module.weight == 0).float().mean())
            for site in (block.sites if block else ())
            if site.module.weight.numel()
        }
        shapes.append(BlockShape(index, *now, *counts, sparsity=sparsity))
    return shapes
