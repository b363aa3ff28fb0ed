"""One model under a grid of methods and sparsities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.methods.base import Method
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.models.module import PrunableModule
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.report.grid import Grid
from lightning_prune.selection import Pattern
from lightning_prune.studies.bench import Asked, Bench
from lightning_prune.studies.specs import (
    Spec,
    is_named,
    label,
    make,
    with_arguments,
    without_arguments,
)

__all__ = ["sweep_methods"]

VARIES = ("allocation", "scope")
"""Arguments that say where zeros go when no pattern does; left out where a pattern is asked for."""


def sweep_methods(
    module: PrunableModule,
    data: Any,
    methods: Sequence[Spec],
    sparsities: Sequence[float | str],
    *,
    device: torch.device | str | None = None,
    journal: str | Path | None = None,
    windows: int | None = None,
) -> Grid:
    """Prune one model by several methods and sparsities, and measure the perplexity of each.

    ```python
    grid = sweep_methods(CausalLM("quickstart"), TextData(length=128), [Wanda, SparseGPT], [0.5])
    grid.write("runs/sweep")
    ```

    Each cell of the grid starts from the dense weights again. What goes wrong in a cell is written
    in its row.

    Args:
        module: the model.
        data: a data module with calibration and validation batches.
        methods: methods that set weights to zero or cut units off: classes, or, as in a
            configuration, their names or mappings of class_path and init_args, with a `name` for
            the table if wanted.
        sparsities: fractions of zeros, such as 0.5, and patterns N:M, such as "2:4" (N kept). Of
            methods that cut units off, the share of the parameters of all GQA groups and neurons
            that goes, whichever of them a method cuts: what stands side by side is of one size.
        device: where blocks run; None: where the model is.
        journal: a folder in which the results are kept: what is there is not computed again.
        windows: perplexity is of so many validation windows at most; None: of all of them.

    Raises:
        ValueError: a method or a sparsity is none, or the model has no tokenizer; before anything
            is pruned.
    """
    _asked(methods, sparsities)  # what is wrong with them is said before the model is loaded
    bench = Bench(module, data, device, journal, windows)
    wanted = _asked(methods, sparsities, module.base)
    dense, reuse = bench.dense(), Reuse()
    cells = [bench.cell(asked, reuse) for asked in wanted]
    return Grid(bench.name, dense, cells, bench.settings(), axis=_axis(wanted))


def _axis(asked: Sequence[Asked]) -> str:
    """What the targets are of: zeros, parameters that go, or both."""
    kinds = {isinstance(one.method, UnitPruning) for one in asked}
    if kinds == {True}:
        return "parameters of GQA groups and neurons that go"
    zeros = "zeros asked for (N:M: N kept of M)"
    return f"{zeros}, or parameters of units that go" if True in kinds else zeros


def _asked(
    methods: Sequence[Spec], sparsities: Sequence[float | str], model: nn.Module | None = None
) -> list[Asked]:
    """The cells, methods by methods; all of them are made, and so checked, before any is done."""
    if not methods or not sparsities:
        raise ValueError(
            "sweep needs methods and sparsities, for example --methods [Magnitude,Wanda] "
            "--sparsities [0.5,2:4]"
        )
    targets = [_target(value) for value in sparsities]
    specs = [dict(spec) if isinstance(spec, Mapping) else spec for spec in methods]
    names = [str(isinstance(s, dict) and s.pop("name", None) or label(s)) for s in specs]
    for listed in (names, [name for name, _ in targets]):
        if repeated := next((name for name in listed if listed.count(name) > 1), None):
            raise ValueError(f"sweep: {repeated!r} is asked for twice; give methods a `name`")
    return [
        Asked(name, shown, _method(spec, argument, model))
        for name, spec in zip(names, specs, strict=True)
        for shown, argument in targets
    ]


def _target(value: float | str) -> tuple[str, dict[str, Any]]:
    """How a sparsity or pattern is shown, and the argument that asks a method for it."""
    share = float(value) if isinstance(value, (int, float)) or _is_number(value) else None
    if share is not None and (share < 1 or share != int(share)):
        return f"{100 * share:.10g}%", {"sparsity": share}
    # YAML takes 2:4 without quotes for the number 124
    pattern = Pattern.parse(int(share) if share is not None else str(value))
    return str(pattern), {"pattern": str(pattern)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _method(spec: Spec, target: Mapping[str, Any], model: nn.Module | None) -> Method:
    """The method with its target."""
    cuts = is_named(spec, UnitPruning)
    if cuts and "pattern" in target:
        raise ValueError(
            f"sweep: {label(spec)} cuts units off, and {target['pattern']} is a pattern of zeros; "
            "give it shares, such as 0.25, in a sweep of their own"
        )
    if cuts:
        spec = without_arguments(spec, ("ratio", "parameters"))
        target = _size(target["sparsity"], model)
    elif "pattern" in target:
        spec = without_arguments(spec, VARIES)
    kind = "methods that set weights to zero, or cut units off"
    try:
        method: Method = make(
            with_arguments(spec, target), UnitPruning if cuts else WeightPruning, kind
        )
    except ValueError as error:
        raise ValueError(f"sweep: {error}") from error
    return method


def _size(share: float, model: nn.Module | None) -> dict[str, Any]:
    """What asks a method that cuts for a share of all units' parameters."""
    if model is None:
        return {"ratio": share}
    blocks = Anatomy(model).blocks
    units = sum(b.units(kind) * b.unit_size(kind) for b in blocks for kind in ("group", "neuron"))
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": total - round(share * units)}
