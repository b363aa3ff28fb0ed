"""Saved models that a command loads one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lightning_prune.anatomy import family_of
from lightning_prune.checkpoints.load import check_stored
from lightning_prune.models import CausalLM
from lightning_prune.models.image_classifier import ImageClassifier
from lightning_prune.models.loading import DType, Source
from lightning_prune.models.module import PrunableModule
from lightning_prune.report.names import short_names

__all__ = ["known_models", "language_models", "loaded", "module_of"]

Module = TypeVar("Module", bound=PrunableModule)

CLASSES: dict[str, type[PrunableModule]] = {
    "AutoModelForCausalLM": CausalLM,
    "AutoModelForImageClassification": ImageClassifier,
}
"""By transformers' class that loads a model, what prunes and judges it."""


def module_of(path: str, dtype: DType = "auto", trust_remote_code: bool = False) -> PrunableModule:
    """The module of a saved model, by the model's type; it is not loaded yet.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is of no known family.
    """
    config = Source(path, None, trust_remote_code).config()
    kind = CLASSES[family_of(config.model_type).task.auto_class]
    return kind(path, dtype=dtype, trust_remote_code=trust_remote_code)


def known_models(
    paths: Sequence[str], dtype: DType, trust_remote_code: bool
) -> dict[str, PrunableModule]:
    """The models by what tables call them; none is loaded yet.

    That is the last part of a path, or as many as tell a model from the others.

    Raises:
        FileNotFoundError: there is no such model, or files of it are missing.
        ValueError: a model is named twice, is of no known family, its files are damaged, or models
            are of several kinds.
    """
    modules: dict[str, PrunableModule] = {}
    path_of: dict[str, str] = {}
    names = short_names(os.path.abspath(path) for path in paths)
    for path in paths:
        module = module_of(path, dtype, trust_remote_code)
        assert module.source is not None
        location = module.source.location
        if module.source.is_folder:
            location = str(Path(location).resolve())
        if location in path_of:
            raise ValueError(
                f"{path!r} is the same model as {path_of[location]!r}; give each model once"
            )
        path_of[location] = path
        config = module.source.config()
        if module.source.is_folder:
            check_stored(Path(location), False, config, trust_remote_code)
        modules[names[os.path.abspath(path)]] = module
    if len({type(module) for module in modules.values()}) > 1:
        said = ", ".join(f"{n} is for a {type(m).__name__}" for n, m in modules.items())
        raise ValueError(f"models of several kinds cannot be compared: {said}")
    return modules


def language_models(modules: Mapping[str, PrunableModule]) -> dict[str, CausalLM]:
    """The same, where all of them are language models.

    Raises:
        ValueError: one is none.
    """
    for name, module in modules.items():
        if not isinstance(module, CausalLM):
            raise ValueError(
                f"{name} is no language model but for a {type(module).__name__}: validate, test "
                "and compare --images judge it by its accuracy"
            )
    return {name: module for name, module in modules.items() if isinstance(module, CausalLM)}


def loaded(modules: Mapping[str, Module]) -> Iterator[tuple[str, Module]]:
    """The models, one after the other: each is let go before the next one is loaded."""
    for name, module in modules.items():
        module.load()
        yield name, module
        module.model = None
