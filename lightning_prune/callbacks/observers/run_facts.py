"""What `WriteReport` says of a run besides figures: what was asked, with what, and its files."""

from __future__ import annotations

import inspect
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import PreTrainedModel

from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.callbacks.observers.evaluate import Evaluate
from lightning_prune.callbacks.observers.save_pretrained import SavePretrained
from lightning_prune.data.protocols import sources_of
from lightning_prune.evaluation import Evaluation
from lightning_prune.models.module import PrunableModule
from lightning_prune.plan import Plan
from lightning_prune.report.names import model_name, unit_names
from lightning_prune.report.report import Asked, Report
from lightning_prune.version import __version__

__all__ = [
    "asked_and_done",
    "configuration",
    "files",
    "importance_of_blocks",
    "new_report",
    "provenance",
    "with_judgements",
]

LIBRARIES = ("torch", "transformers", "lightning", "peft")
BUDGETS = ("ratio", "parameters", "sparsity", "pattern", "attention_ratio", "count", "indices")


def new_report(pl_module: PrunableModule) -> Report:
    """A report in which nothing is measured yet."""
    return Report(
        model=_name(pl_module),
        method="",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={
            "lightning_prune": __version__,
            **{name: version(name) for name in LIBRARIES},
            "python": platform.python_version(),
        },
    )


def _name(pl_module: PrunableModule) -> str:
    """What the model is called; of one that was pruned before, what it was then, too."""
    if pl_module.path is None:
        return f"a new {pl_module.base.config.model_type}"
    name = model_name(pl_module.path)
    before = [step.get("model") for plan in pl_module.plans for step in plan.steps[:1]]
    return f"{model_name(str(before[0]))} ({name})" if before and before[0] else name


def asked_and_done(
    method: PruningCallback, plan: Plan, model: PreTrainedModel, before: int
) -> Asked:
    """One method's budget, and what it came to.

    Args:
        method: that has pruned.
        plan: its decisions.
        model: as it is after it.
        before: parameters of the model before it.
    """
    inner = getattr(method, "method", method)  # Progressive has one inside
    budgets = {name: getattr(inner, name, None) for name in BUDGETS}
    asked = ", ".join(f"{name} {value}" for name, value in budgets.items() if value is not None)
    done, names = [], unit_names(Anatomy(model).blocks)
    after = sum(p.numel() for p in model.parameters())
    if plan.mask_names:
        total = sum(plan.mask_shape(name).numel() for name in plan.mask_names)
        done.append(f"{plan.sparsity():.2%} of {total:,} weights are zero")
    for kind in plan.kinds:
        kept = plan.blocks(kind).values()
        gone, total = sum(units.removed for units in kept), sum(units.total for units in kept)
        done.append(
            f"{gone:,} of {total:,} {names.get(kind, kind)} are gone ({gone / max(total, 1):.1%})"
        )
    if after < before:
        share = (before - after) / before
        done.append(f"{before - after:,} parameters of the model are gone ({share:.1%})")
    asked = "what a saved plan says" if method.plan is not None else asked
    return Asked(type(method).__name__, asked or "-", "; ".join(done) or "nothing")


def importance_of_blocks(plans: Sequence[Plan]) -> dict[str, dict[int, float]]:
    """Importance as the plans have it, by how it was measured; blocks numbered as when dense."""
    importance: dict[str, dict[int, float]] = {}
    gone: set[int] = set()
    for plan in plans:
        values = {int(i): float(v) for i, v in plan.provenance.get("importance", {}).items()}
        left = [i for i in range(len(gone) + max(values, default=-1) + 1) if i not in gone]
        if values:
            arguments = plan.provenance.get("arguments", {})
            by = arguments.get("allocation") or plan.provenance.get("method", "pruning")
            name = f"Importance of blocks, {str(by).partition('(')[0]}"
            importance[name] = {left[index]: value for index, value in values.items()}
        gone |= {left[i] if i < len(left) else i for i in plan.dropped}
    return importance


def configuration(trainer: Trainer, pl_module: PrunableModule) -> dict[str, dict[str, Any]]:
    """The arguments of the model and the data, which text each use had, and the training."""
    data = getattr(trainer, "datamodule", None)
    tables = {
        "model": _arguments(pl_module),
        "data": _arguments(data) if data is not None else {},
        "texts": dict(sources_of(data)),
    }
    names = ("max_epochs", "max_steps", "precision", "world_size", "accumulate_grad_batches")
    tables["trainer"] = {
        name: str(value)
        for name in names
        if (value := getattr(trainer, name, None)) not in (None, -1)
    }
    return {name: values for name, values in tables.items() if values}


def provenance(pl_module: PrunableModule) -> dict[str, Any]:
    """Hashes, seeds and sources."""
    plan = pl_module.plan
    steps = plan.steps if plan is not None else []
    identities = [step.get("identity") or {} for step in steps]
    unit = Anatomy(pl_module.base).task.unit
    facts = {
        "plan (sha256)": plan.fingerprint() if plan is not None else None,
        "dense model (sha256)": _first(identities[:1], "model"),
        "model revision": _first(steps[:1], "revision"),
        f"calibration {unit} (sha256)": _first(identities, "calibration"),
        "calibration": _first(steps, "calibration"),
        "global seed": os.environ.get("PL_GLOBAL_SEED"),
        "lightning_prune (git)": _commit(),
        "platform": platform.platform(),
    }
    return {name: value for name, value in facts.items() if value}


def with_judgements(trainer: Trainer, measured: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """What was measured, with what the callbacks that evaluate have judged, by stage."""
    judges = [c for c in trainer.callbacks if isinstance(c, Evaluate)]  # type: ignore[attr-defined]
    complete = {}
    for stage, evaluation in measured.items():
        judged = [judge.results[stage] for judge in judges if stage in judge.results]
        answers = [answer for result in judged for answer in result.answers]
        complete[stage] = replace(
            evaluation,
            perplexities=[text for result in judged for text in result.perplexities],
            tasks=[task for result in judged for task in result.tasks],
            answers=[*evaluation.answers, *(a for a in answers if a not in evaluation.answers)],
        )
    return complete


def _first(tables: Iterable[Mapping[str, Any]], name: str) -> Any:
    """What the first of the tables that has it says."""
    return next((table[name] for table in tables if table.get(name)), None)


def _arguments(made: Any) -> dict[str, Any]:
    """Constructor arguments as texts, as far as they are kept under their own names."""
    parameters: dict[str, inspect.Parameter] = {}
    for cls in type(made).__mro__:  # one that hands on what it does not know has its base's, too
        if "__init__" in vars(cls):
            signature = inspect.signature(vars(cls)["__init__"]).parameters
            parameters = {**signature, **parameters}
            if not any(p.kind == p.VAR_KEYWORD for p in signature.values()):
                break
    values = {name: vars(made)[name] for name in parameters if name in vars(made)}
    return {
        name: _said(value)
        for name, value in values.items()
        if value is not None or parameters[name].default is not None
    }


def _said(value: Any) -> str:
    """A value as text; an object that does not say what it is, by its own arguments."""
    if type(value).__repr__ is not object.__repr__:
        return str(value)
    inside = ", ".join(f"{name}={text}" for name, text in _arguments(value).items())
    return f"{type(value).__name__}({inside})"


def _commit() -> str | None:
    """The commit of the checkout that the package runs from; None if it is installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def files(trainer: Trainer) -> dict[str, str]:
    """What this run has written so far; what an earlier one left there is not of this run."""
    written: dict[str, str | Path | None] = {
        "config.yaml": Path(trainer.default_root_dir) / "config.yaml"
    }
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PruningCallback):
            written[callback.folder(trainer).name] = callback.folder(trainer)
        elif isinstance(callback, SavePretrained):
            written |= callback.saved
        elif isinstance(callback, ModelCheckpoint) and trainer.global_step > 0:
            written["checkpoints"] = _as_asked(callback.dirpath, trainer)
    for logger in trainer.loggers:
        written.setdefault("logs", logger.log_dir)
    return {name: str(path) for name, path in written.items() if path and Path(path).exists()}


def _as_asked(path: str | Path | None, trainer: Trainer) -> Path | None:
    """A path that Lightning made absolute, as the run's folder was given."""
    root = Path(trainer.default_root_dir)
    if path is None or not Path(path).is_relative_to(root.resolve()):
        return Path(path) if path else None
    return root / Path(path).relative_to(root.resolve())
