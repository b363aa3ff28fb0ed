"""What the arguments of one method do."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.data.protocols import Windowed
from lightning_prune.models.module import PrunableModule
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.report.grid import Grid
from lightning_prune.studies.bench import Asked, Bench, first_windows
from lightning_prune.studies.specs import Spec, label, make, with_arguments

__all__ = ["vary_arguments"]

SAMPLES = "nsamples"
"""Not an argument of methods: on how many calibration windows."""


def vary_arguments(
    module: PrunableModule,
    data: Any,
    method: Spec,
    vary: Mapping[str, Sequence[Any]],
    *,
    device: torch.device | str | None = None,
    journal: str | Path | None = None,
    windows: int | None = None,
) -> Grid:
    """Prune one model by one method with every combination of some arguments.

    ```python
    vary_arguments(CausalLM("quickstart"), TextData(length=128), FLAP, {"ratio": [0.1, 0.2, 0.3]})
    ```

    What goes wrong in a cell is written in its row.

    Args:
        module: the model.
        data: a data module with calibration and validation batches.
        method: a class, or, as in a configuration, its name or a mapping of class_path and
            init_args.
        vary: by argument ("ratio"; "allocation.alpha" is one of an argument), or "nsamples" for
            how many calibration windows, the values to try; those of the last one are the columns
            of the table.
        device: where blocks run; None: where the model is.
        journal: a folder in which the results are kept: what is there is not computed again.
        windows: perplexity is of so many validation windows at most; None: of all of them.

    Raises:
        ValueError: an argument has no values, or a method cannot be made; before anything is
            pruned.
    """
    if empty := [name for name, values in vary.items() if not values]:
        raise ValueError(f"search: {empty[0]} has no values to try")
    if SAMPLES in vary:
        data = _with_samples(data, vary[SAMPLES])
    wanted = _asked(method, vary)
    bench = Bench(module, data, device, journal, windows)
    dense, cells = bench.dense(), []
    reuses: dict[int, Reuse] = {}
    for asked, samples in wanted:
        calibration = first_windows(bench.calibration, samples) if samples else None
        cells.append(bench.cell(asked, reuses.setdefault(samples, Reuse()), calibration))
    settings = bench.settings()
    if SAMPLES in vary:
        settings["calibration"] = f"calibrated on windows of {bench.length} tokens"
    title = f"{{}} of {type(wanted[0][0].method).__name__} by its arguments"
    axis = list(vary)[-1]
    return Grid(bench.name, dense, cells, settings, name="search", title=title, axis=axis)


def _asked(method: Spec, vary: Mapping[str, Sequence[Any]]) -> list[tuple[Asked, int]]:
    """The cells, all of them made and so checked, each with how many windows it calibrates on."""
    cells = []
    for values in product(*vary.values()):
        shown = [f"{name}={_short(value)}" for name, value in zip(vary, values, strict=True)]
        arguments = dict(zip(vary, values, strict=True))
        samples = arguments.pop(SAMPLES, 0)
        try:
            made = make(with_arguments(method, arguments), PruningCallback, "pruning methods")
        except ValueError as error:
            raise ValueError(f"search: {error}") from error
        name = ", ".join(shown[:-1]) or label(method).partition("(")[0]
        cells.append((Asked(name, shown[-1], made), samples))
    return cells


def _short(value: Any) -> str:
    return str(value.get("class_path")) if isinstance(value, Mapping) else str(value)


def _with_samples(data: Any, counts: Sequence[Any]) -> Any:
    """The same data with as many calibration windows as are ever asked for."""
    if any(not isinstance(count, Integral) or count < 1 for count in counts):
        raise ValueError(f"search: nsamples={list(counts)} must be whole numbers, 1 or more")
    if not isinstance(data, Windowed):
        raise ValueError(f"search: {type(data).__name__} has no nsamples that could be varied")
    more = copy.copy(data)
    more.nsamples, more.windows = max(counts), {}
    return more
