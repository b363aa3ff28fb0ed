"""When pruning happens inside a Trainer.

A pruning callback acts in `setup(stage="fit")`: the process group is up, the model is on the CPU,
and neither adapter, nor wrapper, nor optimizer exists yet, so shapes may still change.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from transformers import PreTrainedModel

from lightning_prune import distributed, pipeline, surgery
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks import early
from lightning_prune.callbacks.observers.base import observers_of
from lightning_prune.data.protocols import Calibrating, Windowed, sources_of
from lightning_prune.digests import fingerprint
from lightning_prune.methods.base import Method
from lightning_prune.models.module import PrunableModule
from lightning_prune.pipeline.fit import check_fits
from lightning_prune.pipeline.unfinished import Unfinished, clear_finished
from lightning_prune.plan import Plan
from lightning_prune.sweep import placement_of

__all__ = ["PruningCallback", "methods_of"]


class _Start(NamedTuple):
    """What there is of a run when it starts, or starts again.

    Attributes:
        identity: what its decisions depend on.
        plan: the one it has made before; None: it decides.
        unfinished: the blocks that it has decided on; None: it does not decide.
        check: refuses a plan with which the checkpoint was not made.
    """

    identity: dict[str, Any]
    plan: Plan | None
    unfinished: Unfinished | None
    check: Callable[[Plan | None], None]

    def clear(self) -> None:
        """Take away what is not needed any more."""
        if self.unfinished is not None:
            self.unfinished.clear()


class PruningCallback(Method, Callback):
    """A pruning method that runs when `fit` starts: `class Wanda(PruningCallback, WeightPruning)`.

    The plan is saved in the run's folder (`trainer.default_root_dir`), with the calibration tokens
    of a `TextData` beside it. When a run is started again there, with the same model, method and
    calibration data, the saved plan is applied and nothing is calibrated: that is how an
    interrupted `fit` resumes, with the shapes and masks that its checkpoint was made with. Pruning
    that was interrupted itself goes on behind the last block that it had finished.
    """

    _made: list[Plan] = field(init=False, repr=False, default_factory=list)

    @property
    def state_key(self) -> str:
        """Tells two methods of one class apart in a checkpoint."""
        return repr(self)

    def has_pruned(self, pl_module: LightningModule) -> bool:
        """Whether this method's decisions are among those that the module's model carries."""
        return any(plan in self._made for plan in getattr(pl_module, "plans", ()))

    def folder(self, trainer: Trainer) -> Path:
        """`plan` in the run's folder; with several methods `plan-1`, `plan-2`, … in their order."""
        methods = methods_of(trainer)
        name = "plan" if len(methods) == 1 else f"plan-{methods.index(self) + 1}"
        return Path(trainer.default_root_dir) / name

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prune, or apply the saved plan; once for each module, and only for `fit`."""
        if stage != "fit" or self.has_pruned(pl_module):
            return
        if not isinstance(pl_module, PrunableModule):
            raise TypeError(
                f"{type(self).__name__} prunes a PrunableModule, such as lightning_prune.CausalLM; "
                f"got {type(pl_module).__name__}. With a training loop of your own use "
                "lightning_prune.prune(model, method, batches)."
            )
        early.check_checkpoint(early.checkpoint_of(trainer))
        pl_module.load()
        self._refuse(trainer, pl_module)
        data: Any = getattr(trainer, "datamodule", None)
        if self.calibrates and isinstance(data, Windowed):  # tokens of an earlier start are ours
            data.restore(self.folder(trainer))
        for observer in observers_of(trainer):
            observer.before_prune(trainer, pl_module)
        start = self._start(trainer, pl_module)
        if start.plan is None and self.calibrates:
            self._check_fits(trainer, pl_module)
        distributed.once(lambda: self.folder(trainer).mkdir(parents=True, exist_ok=True))
        for observer in observers_of(trainer, start=True):
            observer.on_prune_start(trainer, pl_module)
        plan = self._plan(trainer, pl_module, start)
        self._made.append(plan)
        pl_module.plans.append(plan)
        for observer in observers_of(trainer):
            observer.on_prune_end(trainer, pl_module, plan)

    def _refuse(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Everything that can be refused without a forward pass."""
        if self.cuts and any(plan.mask_names for plan in pl_module.plans):
            raise ValueError(
                f"{type(self).__name__} would cut a model that is masked already, and the masks "
                "would no longer fit. List methods that cut before methods that mask."
            )
        if self.plan is None:
            self.check(Anatomy(pl_module.base))
        data = getattr(trainer, "datamodule", None)
        if self.calibrates and not isinstance(data, Calibrating):
            raise ValueError(
                f"{type(self).__name__} needs calibration data: give fit a datamodule with a "
                "calibration_dataloader, such as lightning_prune.TextData or ImageData"
            )
        early.check_training(trainer, pl_module)

    @property
    def scoring(self) -> Method:
        """The method that scores and chooses: this one, or the one that it runs in rounds."""
        return self

    def _check_fits(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Refuse what is certain not to fit into memory, before the dense model is measured."""
        data: Any = getattr(trainer, "datamodule", None)
        with isolate_rng():  # a loader that shuffles gives the same batches again
            batches = list(data.calibration_dataloader())
        placement = placement_of(Anatomy(pl_module.base), trainer.strategy.root_device)
        check_fits(placement, self.scoring, batches)

    def _identity(self, trainer: Trainer, pl_module: PrunableModule) -> dict[str, Any]:
        """What the decisions depend on."""
        arguments = {k: repr(v) for k, v in self.arguments.items() if k not in _NO_DECISION}
        arguments["allocation"] = self.effective_allocation.identity
        data = getattr(trainer, "datamodule", None)
        return {
            "method": type(self).__name__,
            "arguments": arguments,
            "model": fingerprint(pl_module.base),
            "calibration": _fingerprint(data) if self.calibrates else None,
        }

    def _start(self, trainer: Trainer, pl_module: PrunableModule) -> _Start:
        """What there is of this run already, if it goes with the checkpoint that is resumed."""
        identity, folder = self._identity(trainer, pl_module), self.folder(trainer)
        saved = distributed.once(lambda: self._saved_plan(folder))
        same = saved if saved is not None and self._is_same(saved, identity) else None
        path = early.checkpoint_of(trainer)
        recorded = distributed.once(lambda: early.recorded_plans(path))

        def check(plan: Plan | None) -> None:
            if recorded is not None:
                index = len(pl_module.plans)
                early.check_plan(plan, saved, identity, recorded, index, folder)

        check(same)
        begun, unfinished = None, folder.with_name(f"{folder.name}-unfinished")
        if same is not None:
            clear_finished(unfinished, identity)
        elif self.plan is None:
            begun = Unfinished(unfinished, identity)
        return _Start(identity, same, begun, check)

    def _plan(self, trainer: Trainer, pl_module: PrunableModule, start: _Start) -> Plan:
        folder, model = self.folder(trainer), pl_module.base
        if start.plan is not None:
            rank_zero_info(f"Applying the plan in {folder}: same model, method and calibration.")
            surgery.apply(Anatomy(model), start.plan)
            return start.plan
        data: Any = getattr(trainer, "datamodule", None)
        batches = data.calibration_dataloader() if self.calibrates else None
        plan = self._prune(trainer, model, batches, start.unfinished)
        if self.plan is None:  # a plan that was given keeps saying where it comes from
            plan.provenance["identity"] = start.identity
        if self.calibrates:
            plan.provenance["calibration"] = _calibration_of(data)
        try:
            start.check(plan)
        except ValueError:
            start.clear()
            raise

        def write() -> None:
            _set_aside(folder)
            if self.calibrates and isinstance(data, Windowed):
                data.keep(folder)
            plan.save(folder, model)

        distributed.once(write)
        start.clear()
        return plan

    def _prune(
        self, trainer: Trainer, model: PreTrainedModel, batches: Any, unfinished: Unfinished | None
    ) -> Plan:
        """Prune with this process's calibration batches; None: nothing is calibrated."""
        device = trainer.strategy.root_device
        return pipeline.prune(model, self, batches, device, resume=unfinished)

    def _saved_plan(self, folder: Path) -> Plan | None:
        """The plan of an earlier run in this folder, if there is one that can be read."""
        if self.plan is not None:
            return None
        try:
            return Plan.load(folder)
        except FileNotFoundError:
            return None
        except ValueError as error:
            rank_zero_warn(f"{type(self).__name__} decides anew: {error}")
            return None

    def _is_same(self, plan: Plan, identity: dict[str, Any]) -> bool:
        """Whether a saved plan is of an earlier start of the same run, with all that is kept."""
        complete = plan.has_scores or not self.keep_scores
        return complete and plan.provenance.get("identity") == identity


# Settings that change no decision, or that are part of the identity otherwise.
_NO_DECISION = ("plan", "keep_scores", "offload")


def methods_of(trainer: Trainer) -> list[PruningCallback]:
    """The pruning methods in a Trainer, in their order."""
    return [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # type: ignore[attr-defined]


def _set_aside(folder: Path) -> None:
    """Keep the plan of a former run beside the folder that gets another one."""
    if (folder / "plan.json").is_file():
        before = folder.with_name(f"{folder.name}-before")
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)
        rank_zero_info(f"The plan that was in {folder} is kept in {before}.")


def _calibration_of(data: Any) -> dict[str, Any]:
    """What a datamodule says of its calibration text; one of the user's own may say less."""
    source = sources_of(data).get("calibration", getattr(data, "source", None))
    names = ("nsamples", "length", "seed", "begin_token", "dated")
    settings = {name: getattr(data, name, None) for name in names}
    return {k: v for k, v in {"source": source, **settings}.items() if v is not None}


def _fingerprint(data: Any) -> str:
    """A hash of the calibration tokens: the datamodule's own, or one of this process's batches."""
    if isinstance(data, Windowed):
        return data.calibration_fingerprint()
    digest = hashlib.sha256()
    with isolate_rng():  # a loader that shuffles gives the same batches again
        for batch in data.calibration_dataloader():
            for name in sorted(name for name in batch if isinstance(batch[name], torch.Tensor)):
                tensor = batch[name]
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                plain = tensor.double() if tensor.is_floating_point() else tensor.long()
                digest.update(plain.cpu().numpy().tobytes())
    return digest.hexdigest()
