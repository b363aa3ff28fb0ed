"""`lightning-prune sweep`: one model under a grid of methods and sparsities, in one table."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.cli.errors import parse_reason
from lightning_prune.data import TextData
from lightning_prune.evaluation import perplexity
from lightning_prune.files import write_json
from lightning_prune.method import Method
from lightning_prune.models import CausalLM
from lightning_prune.pipeline import prune
from lightning_prune.provenance import fingerprint
from lightning_prune.report.grid import Cell, Grid, number, print_grid
from lightning_prune.reuse import Reuse
from lightning_prune.selection import Pattern
from lightning_prune.version import __version__

__all__ = ["Asked", "Store", "compare", "digest_of", "done", "weights_of"]

VARIES = ("allocation", "scope")
"""Arguments that say where zeros go when no pattern does; left out where a pattern is asked for."""

Batches = list[dict[str, torch.Tensor]]
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One cell of the grid, before it is done."""

    label: str
    target: str
    method: Method


def compare(
    module: CausalLM,
    data: TextData,
    methods: Sequence[str | Spec],
    sparsities: Sequence[float | str],
    device: torch.device,
    folder: Path,
) -> Grid:
    """Do every cell that is not done yet, and write the table; see `PruneTrainer.sweep`.

    Raises:
        ValueError: a method or a sparsity is none, or the model has no tokenizer. What goes wrong
            in a cell is written in its row instead.
    """
    asked = _asked(methods, sparsities)
    module.load()
    if module.tokenizer is not None:
        data.attach(module.tokenizer, module.max_position_embeddings, module.vocabulary)
        data.restore(folder)
    calibration, validation = list(data.calibration_dataloader()), list(data.val_dataloader())
    data.keep(folder)
    weights = weights_of(module.base)
    common = {
        "model": fingerprint(module.base),
        "calibration": digest_of(calibration),
        "validation": digest_of(validation),
        "version": __version__,
    }
    store = Store(folder / "cells", common)
    dense = store.get("dense") or store.put(
        "dense", Cell("dense", "", perplexity(module.base, validation, device), 0.0, 0.0)
    )
    cells, reuse = [], Reuse()
    for one in asked:
        known = store.get(repr(one.method))
        cell = known or done(one, module.base, weights, calibration, validation, device, reuse)
        if known is None and not cell.error:
            store.put(repr(one.method), cell)
        said = cell.error or f"perplexity {number(cell.perplexity)}" + ", known" * bool(known)
        rank_zero_info(f"{one.label} {one.target}: {said}")
        cells.append(Cell(**asdict(cell) | {"method": one.label, "target": one.target}))
    assert dense.perplexity is not None
    grid = Grid(
        model=str(module.path),
        dense=dense.perplexity,
        cells=cells,
        settings={
            "window": validation[0]["input_ids"].shape[1],
            "windows": sum(len(batch["input_ids"]) for batch in validation),
            "begin": data.begun_with("validation"),
            "calibration": f"calibrated on {data.nsamples} x {data.length} tokens",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "dtype": str(module.base.dtype).removeprefix("torch."),
            "data": data.sources,
            "versions": {"torch": str(torch.__version__), "lightning_prune": __version__},
        },
    )
    files = grid.write(folder)
    print_grid(grid, files)
    return grid


def done(
    asked: Asked,
    model: nn.Module,
    weights: int,
    calibration: Batches,
    validation: Batches,
    device: torch.device,
    reuse: Reuse,
) -> Cell:
    """One cell: a copy of the dense model is pruned and measured; an error becomes the result."""
    try:
        pruned = copy.deepcopy(model)  # also a model that is cut, of another class, is put back
        start = time.perf_counter()
        prune(pruned, asked.method, calibration, device, reuse)
        seconds = time.perf_counter() - start
        left = sum(
            int(site.module.weight.count_nonzero())
            for block in Anatomy(pruned).blocks
            for site in block.sites
        )
        return Cell(
            asked.label,
            asked.target,
            perplexity=perplexity(pruned, validation, device),
            sparsity=1 - left / weights,
            seconds=seconds,
        )
    except Exception as error:  # a row of the table; the other cells go on
        reason = " ".join(str(error).split())
        known = isinstance(error, (ValueError, OSError))
        return Cell(
            asked.label,
            asked.target,
            error=reason if known and reason else f"{type(error).__name__}: {reason}",
        )


def weights_of(model: nn.Module) -> int:
    """How many weights the Linears of the blocks have."""
    return sum(s.module.weight.numel() for block in Anatomy(model).blocks for s in block.sites)


# --- what is asked for ---


def _asked(methods: Sequence[str | Spec], sparsities: Sequence[float | str]) -> list[Asked]:
    """The cells, methods by methods; all of them are built, and so checked, before any is done."""
    if not methods or not sparsities:
        raise ValueError(
            "sweep needs methods and sparsities, for example --methods [Magnitude,Wanda] "
            "--sparsities [0.5,2:4]"
        )
    targets = [_target(value) for value in sparsities]
    specs = [{"class_path": m} if isinstance(m, str) else dict(m) for m in methods]
    labels = [str(spec.pop("name", None) or _label(spec)) for spec in specs]
    for found in (labels, [name for name, _ in targets]):
        if repeated := next((x for x in found if found.count(x) > 1), None):
            raise ValueError(f"sweep: {repeated!r} is asked for twice; give methods a `name`")
    return [
        Asked(label, name, _method(spec, argument))
        for label, spec in zip(labels, specs, strict=True)
        for name, argument in targets
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


def _method(spec: Spec, target: Mapping[str, Any]) -> Method:
    """The method of a class_path and init_args, with the target; types are checked as in a run."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(WeightPruning, "method")
    arguments = {**(spec.get("init_args") or {}), **target}
    if "pattern" in target:
        arguments = {name: arguments[name] for name in arguments if name not in VARIES}
    try:
        config = parser.parse_object({"method": {**spec, "init_args": arguments}})
        method = parser.instantiate_classes(config).method
    except ArgumentError as error:
        hint = "methods that set weights to zero are compared, by class_path and init_args"
        raise ValueError(f"sweep: {parse_reason(str(error), error)} ({hint})") from error
    assert isinstance(method, Method)
    return method


def _label(spec: Spec) -> str:
    """A method as a call: its class and the arguments that were given."""
    arguments = ", ".join(
        f"{name}={_label(value) if isinstance(value, Mapping) else value}"
        for name, value in (spec.get("init_args") or {}).items()
    )
    name = str(spec.get("class_path", "")).rpartition(".")[2]
    return f"{name}({arguments})" if arguments else name


# --- what is done already ---


class Store:
    """Results in a folder, one file each, found again by all that they depend on."""

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self._folder, self._common = folder, common

    def get(self, call: str) -> Cell | None:
        """The result of a method's call, if it is there; a damaged file is none."""
        identity, path = self._place(call)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["identity"] != identity:
                return None
            cell = Cell(**found["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Cell(**asdict(cell) | {"perplexity": float(cell.perplexity or "nan")})

    def put(self, call: str, cell: Cell) -> Cell:
        """Keep a result."""
        identity, path = self._place(call)
        result = asdict(cell) | {"perplexity": str(cell.perplexity)}  # JSON has no inf
        write_json(path, {"identity": identity, "result": result})
        return cell

    def _place(self, call: str) -> tuple[dict[str, Any], Path]:
        identity = {"call": call, **self._common}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return identity, self._folder / f"{digest[:16]}.json"


def digest_of(batches: Iterable[Mapping[str, torch.Tensor]]) -> str:
    """A hash of batches."""
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            digest.update(f"{name} {tuple(batch[name].shape)}".encode())
            digest.update(batch[name].cpu().numpy().tobytes())
    return digest.hexdigest()
