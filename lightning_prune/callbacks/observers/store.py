"""Add what a run finds to a store of results."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.analysis.store.described import (
    asked_of,
    gone_rows,
    matrix_rows,
    plan_rows,
    score_rows,
)
from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.store.rows import Evaluation, Row, Run
from lightning_prune.analysis.zeros import matrix_zeros
from lightning_prune.callbacks.base import methods_of
from lightning_prune.callbacks.observers.base import PruneObserver, report_of
from lightning_prune.callbacks.observers.evaluate import Evaluate
from lightning_prune.callbacks.observers.measuring import device_name
from lightning_prune.checks import known_arguments
from lightning_prune.data.protocols import sources_of
from lightning_prune.models.module import PrunableModule
from lightning_prune.plan import Plan
from lightning_prune.report.kept.runs import judged_rows, report_rows
from lightning_prune.report.names import model_name

__all__ = ["Store"]


class Store(PruneObserver):
    """Add the run to a store of results: one DuckDB file, which SQL can ask.

    Of a run of `fit` or `prune`, the plans, the zeros and norms of every matrix at every stage, the
    spread of the scores where they were kept, and all that `WriteReport` in the same Trainer has
    measured; of `validate` and `test`, the matrices of the model, the metrics that were logged, and
    what an `Evaluate` has found. It is added as a whole when the run has ended; of a run that
    fails or is killed, nothing is. Process 0 writes; several runs may write to one file, one after
    the other. docs/analysis.md lists tables, columns and queries.

    Args:
        db: the file; it is made if it is not there.
        matrices: also look at every matrix, which takes some two seconds for 100 million weights at
            each stage.

    Raises:
        ImportError: there is no DuckDB (`pip install 'lightning-prune[analysis]'`).
        ValueError: the file is no store, or one of a newer version; before anything is pruned.
        TimeoutError: another process has had it for a minute.
    """

    reports: ClassVar[bool] = True

    @known_arguments
    def __init__(self, db: str, matrices: bool = True) -> None:
        self.db, self.matrices = db, matrices
        self._found: MutableMapping[LightningModule, list[Row]] = WeakKeyDictionary()
        self._start = 0.0

    def before_prune(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Refuse a file that cannot be written."""
        self._begin(pl_module)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse it where nothing is pruned, too; look at a model that is validated or tested."""
        if stage == "predict":
            return
        self._begin(pl_module)
        if stage != "fit" and isinstance(pl_module, PrunableModule):
            self.load(pl_module)
            self._look(pl_module, "model", pl_module.base)

    def on_prune_start(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Look at the dense model; with several methods, before the first one."""
        if not self._found[pl_module]:
            self._look(pl_module, "dense", pl_module.base)

    def on_prune_end(self, trainer: Trainer, pl_module: PrunableModule, plan: Plan) -> None:
        """Look at the pruned model, when the last method is done."""
        if all(method.has_pruned(pl_module) for method in methods_of(trainer)):
            self._look(pl_module, "pruned", pl_module.base)

    def on_recovery_end(
        self, trainer: Trainer, pl_module: PrunableModule, model: PreTrainedModel | None
    ) -> None:
        """Look at the recovered model as it will be saved."""
        self._look(pl_module, "recovered", model)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the run."""
        if pl_module not in self._found:
            return

        def add() -> None:
            (number,) = Results(self.db).add([self._run(trainer, pl_module, stage)])
            rank_zero_info(f"Added to {self.db} as run {number}")

        distributed.once(add)
        del self._found[pl_module]

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Add nothing of a run that fails."""
        self._found.pop(pl_module, None)

    def _begin(self, pl_module: LightningModule) -> None:
        """Begin the run, once, whoever of the callbacks is set up first."""
        if pl_module not in self._found:
            distributed.once(Results(self.db).prepare)
            self._found[pl_module], self._start = [], time.perf_counter()

    def _look(self, pl_module: PrunableModule, stage: str, model: nn.Module | None) -> None:
        """Note every matrix of a model at a stage, in process 0."""

        def look() -> None:
            assert model is not None, "process 0 has the model"
            found, plan = self._found[pl_module], pl_module.plan
            gone = plan.dropped if plan is not None else set()
            found += gone_rows(stage, found, gone)
            found += matrix_rows(stage, matrix_zeros(model.state_dict()), gone)

        if self.matrices:
            with self.timed(f"storing {stage}"):
                distributed.once(look)

    def _run(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> Run:
        plans = list(getattr(pl_module, "plans", ()))
        report = report_of(trainer, pl_module)
        rows = [*self._found[pl_module], *plan_rows(plans)]
        rows += [row for plan in plans for row in score_rows(plan)]
        if stage == "fit" and report is not None:
            rows += report_rows(report)
        else:
            rows += _logged(trainer, stage)
            rows += [row for one in _judges(trainer) for row in judged_rows("model", one)]
        path = getattr(pl_module, "path", None)
        return Run(
            command=_command(trainer, stage),
            model=report.model if report is not None else path and model_name(path),
            folder=str(Path(trainer.default_root_dir).resolve()),
            device=device_name(trainer.strategy.root_device),
            dtype=str(pl_module.dtype).removeprefix("torch."),
            seconds=time.perf_counter() - self._start,
            settings={} if report is None else {**report.settings, **report.configuration},
            rows=rows,
            **asked_of(plans),
        )

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is spawned: what was found stays with the modules of this one."""
        return vars(self) | {"_found": {}}


def _command(trainer: Trainer, stage: str) -> str:
    """What the run was; `prune` is a `fit` that trains nothing."""
    return "prune" if stage == "fit" and not trainer.global_step else stage


def _judges(trainer: Trainer) -> list[Any]:
    """What callbacks that evaluate have found of a model that was validated or tested."""
    judges = [c for c in trainer.callbacks if isinstance(c, Evaluate)]  # type: ignore[attr-defined]
    return [judge.results["model"] for judge in judges if "model" in judge.results]


def _logged(trainer: Trainer, stage: str) -> list[Row]:
    """The metrics that Lightning shows at the end."""
    split = {"validate": "validation", "fit": "validation"}.get(stage, stage)
    text = sources_of(getattr(trainer, "datamodule", None)).get(split)
    found = "recovered" if stage == "fit" else "model"
    names = {"validation": "val_"}.get(split, f"{split}_")
    return [
        Evaluation(found, name.removeprefix(names), float(value), task=text, split=split)
        for name, value in trainer.callback_metrics.items()
        if name.startswith(names)
    ]
