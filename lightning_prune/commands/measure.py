"""`lightning-prune measure A [B …]`: size and speed of saved models on the device at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lightning_prune.checkpoints.names import weight_files
from lightning_prune.commands.arguments import Kept, usable_device, writable_folder
from lightning_prune.commands.models import known_models, language_models, loaded
from lightning_prune.commands.quiet import quiet_loading
from lightning_prune.commands.sparse import known_variants, sparse_or_dense
from lightning_prune.evaluation import (
    Evaluation,
    Size,
    check_numbers,
    forward_speed,
    generation_speed,
)
from lightning_prune.models.image_classifier import ImageClassifier
from lightning_prune.models.loading import DType
from lightning_prune.models.module import PrunableModule
from lightning_prune.report.evaluation import evaluation_document
from lightning_prune.report.files import show
from lightning_prune.report.kept.runs import evaluation_runs

__all__ = ["measure"]


@quiet_loading()
def measure(
    models: list[str],
    kept: Kept,
    *,
    batch_sizes: Sequence[int] = (1, 8),
    lengths: Sequence[int] = (128,),
    new_tokens: int = 32,
    runs: int = 5,
    thresholds: list[str] | None = None,
    dtype: DType = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    out: str | Path | None = None,
) -> None:
    """Measure saved models, side by side; the others are compared with the first.

    Parameters, zeros, bytes on disk, and speed and memory on this machine: of generation with a KV
    cache, or, of image classifiers, of forward passes.

    Args:
        models: folders, names on the hub, or "quickstart".
        kept: where the results are added.
        batch_sizes: how many prompts, or images, at once.
        lengths: tokens of the prompts.
        new_tokens: how many tokens are generated after each prompt.
        runs: timed runs; their median counts.
        thresholds: files of `analyze activations`, or "saved" for activation_thresholds.json in a
            model's folder: each model is measured as it is, and with its activations cut by each.
        dtype: of the weights.
        device: where to run; None: a GPU if there is one.
        trust_remote_code: run Python code that comes with a model.
        out: a folder for measurement.json and measurement.md.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: a model or thresholds cannot be used, or a number is out of range; before the
            first model is loaded.
    """
    where = usable_device(device)
    modules = known_models(models, dtype, trust_remote_code)
    if all(isinstance(module, ImageClassifier) for module in modules.values()):
        if thresholds:
            raise ValueError("thresholds are of language models; image classifiers are not cut so")
        classifiers = {n: m for n, m in modules.items() if isinstance(m, ImageClassifier)}
        _measure_images(classifiers, batch_sizes, runs, where, dtype, out, kept)
        return
    languages = language_models(modules)
    shapes = [
        {"batch_size": batch_size, "prompt": length, "new_tokens": new_tokens, "runs": runs}
        for batch_size in batch_sizes
        for length in lengths
    ]
    for name, module in languages.items():
        for shape in shapes:
            try:
                check_numbers(module.max_position_embeddings, **shape)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    variants = known_variants(languages, thresholds)
    folder = writable_folder(out)
    measured: dict[str, Evaluation] = {}
    notes: list[str] = []
    for name, module in loaded(languages):
        size = _size(module)
        for label, limits in variants[name].items():
            with sparse_or_dense(module.base, limits) as sparse:
                speeds = [generation_speed(module.base, where, **shape) for shape in shapes]
                unread = None if sparse is None else sparse.unread
                notes += [f"{label}: {sparse.note}"] if sparse is not None and sparse.note else []
            measured[label] = Evaluation(speeds=speeds, size=size, unread=unread)
    asked = {"new_tokens": new_tokens, "runs": runs}
    _show(measured, where, dtype, asked, folder, kept, notes)


def _measure_images(
    modules: Mapping[str, ImageClassifier],
    batch_sizes: Sequence[int],
    runs: int,
    where: torch.device,
    dtype: DType,
    out: str | Path | None,
    kept: Kept,
) -> None:
    """Image classifiers, on random images of the size that each reads."""
    for name, number in (("runs", runs), ("batch_sizes", min(batch_sizes, default=0))):
        if number < 1:
            raise ValueError(f"{name}={number}; 1 at least")
    folder = writable_folder(out)
    measured = {
        name: Evaluation(
            size=_size(module),
            forwards=[
                forward_speed(module.base, module.random_images(size), where, runs)
                for size in batch_sizes
            ],
        )
        for name, module in loaded(modules)
    }
    _show(measured, where, dtype, {"runs": runs}, folder, kept)


def _show(
    measured: Mapping[str, Evaluation],
    where: torch.device,
    dtype: DType,
    asked: Mapping[str, int],
    folder: Path | None,
    kept: Kept,
    notes: Sequence[str] = (),
) -> None:
    settings = {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **asked,
        "torch": str(torch.__version__),
    }
    document = evaluation_document(measured, settings, "measurement")
    line = ", ".join(f"{name} {value}" for name, value in settings.items())
    show(replace(document, printed=[*document.printed, *notes, line]), folder)
    kept.add(evaluation_runs, "measure", measured, settings)


def _size(module: PrunableModule) -> Size:
    parameters = list(module.base.parameters())
    assert module.source is not None
    folder = Path(module.source.location)
    files = weight_files(folder) if folder.is_dir() else None
    return Size(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(p.count_nonzero()) for p in parameters),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
        disk=None if files is None else sum(file.stat().st_size for file in files),
    )
