"""Thresholds of activations that a command is to run models with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from lightning_prune.analysis.activations import Thresholds
from lightning_prune.kernels import (
    SparseActivations,
    read_thresholds,
    sparse_activations,
    usable_thresholds,
)
from lightning_prune.models import CausalLM
from lightning_prune.models.loading import Source

__all__ = ["SAVED", "Variants", "known_variants", "sparse_or_dense", "thresholds_for"]

SAVED = "saved"
"""In place of a file: the one in the model's folder."""

Variants = Mapping[str, Thresholds | None]
"""By what tables call it, a model as it is (None), or with its activations cut."""


def thresholds_for(source: Source, asked: str) -> Thresholds:
    """Thresholds that fit a model, of which no weight is read yet.

    Args:
        source: of the model.
        asked: a file, or "saved" for activation_thresholds.json in the model's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no thresholds, or those of another model.
    """
    found = read_thresholds(source.location if asked == SAVED else Path(asked))
    with torch.device("meta"):
        model = source.auto_class.from_config(source.config())
    usable_thresholds(model, found)
    return found


def known_variants(
    modules: Mapping[str, CausalLM], asked: Sequence[str] | None
) -> dict[str, Variants]:
    """Each model as it is and then, if that is asked for, with each of the thresholds.

    Args:
        modules: by what tables call them.
        asked: files of thresholds, or "saved"; None: none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: thresholds do not fit a model, or two of a model are of the same sparsity.
    """
    variants: dict[str, Variants] = {}
    for name, module in modules.items():
        assert module.source is not None
        cut: dict[str, Thresholds | None] = {name: None}
        for file in asked or ():
            try:
                found = thresholds_for(module.source, file)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            label = f"{name} {found.sparsity:.0%} cut"
            if label in cut:
                raise ValueError(
                    f"{file} is of {found.sparsity:.0%}, as another file is; give one of each"
                )
            cut[label] = found
        variants[name] = cut
    return variants


@contextmanager
def sparse_or_dense(
    model: nn.Module, thresholds: Thresholds | None
) -> Iterator[SparseActivations | None]:
    """Context in which a model's activations are cut, if there are thresholds."""
    if thresholds is None:
        yield None
    else:
        with sparse_activations(model, thresholds) as sparse:
            yield sparse
