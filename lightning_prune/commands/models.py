"""Saved models that a command loads one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_prune.checkpoints.load import check_stored
from lightning_prune.models import CausalLM
from lightning_prune.models.loading import DType
from lightning_prune.report.names import short_names

__all__ = ["known_models", "loaded"]


def known_models(
    paths: Sequence[str], dtype: DType, trust_remote_code: bool
) -> dict[str, CausalLM]:
    """The models by what tables call them; none is loaded yet.

    That is the last part of a path, or as many as tell a model from the others.

    Raises:
        FileNotFoundError: there is no such model, or files of it are missing.
        ValueError: a model is named twice, is of no known family, or its files are damaged.
    """
    modules: dict[str, CausalLM] = {}
    path_of: dict[str, str] = {}
    names = short_names(os.path.abspath(path) for path in paths)
    for path in paths:
        module = CausalLM(path, dtype=dtype, trust_remote_code=trust_remote_code)
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
    return modules


def loaded(modules: Mapping[str, CausalLM]) -> Iterator[tuple[str, CausalLM]]:
    """The models, one after the other: each is let go before the next one is loaded."""
    for name, module in modules.items():
        module.load()
        yield name, module
        module.model = None
