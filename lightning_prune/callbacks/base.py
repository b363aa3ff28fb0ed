"""When pruning happens inside a Trainer.

A pruning callback acts in `setup(stage="fit")`: the process group is up, the model is on the CPU,
and neither adapter, nor wrapper, nor optimizer exists yet, so shapes may still change.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from transformers import PreTrainedModel

from lightning_prune import distributed, pipeline, surgery
from lightning_prune.allocation import Allocation
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.callbacks.observers.base import observers_of
from lightning_prune.method import Method
from lightning_prune.models import CausalLM
from lightning_prune.plan import Plan
from lightning_prune.provenance import fingerprint

__all__ = ["PruningCallback", "methods_of"]


class PruningCallback(Method, Callback):
    """A pruning method that runs when `fit` starts.

    The plan is saved in the run's folder (`trainer.default_root_dir`). When a run is started again
    there, with the same model, method and calibration data, the saved plan is applied and nothing
    is calibrated: that is how an interrupted `fit` resumes, with the shapes and masks that its
    checkpoint was made with.

    Args:
        plan: folder of a saved plan to apply; nothing is calibrated then.
        layer_start: first block to prune.
        layer_end: block to stop before; None: the last block is pruned too.
        allocation: how the budget is shared among blocks; None: the same share for all.
        keep_scores: save the scores with the plan.
        offload: keep the calibration set's hidden states on the CPU between blocks.
    """

    def __init__(
        self,
        plan: Plan | str | Path | None = None,
        layer_start: int = 0,
        layer_end: int | None = None,
        allocation: Allocation | None = None,
        keep_scores: bool = False,
        offload: bool = False,
    ) -> None:
        self.plan = plan
        self.layer_start, self.layer_end = layer_start, layer_end
        if allocation is not None and not isinstance(allocation, Allocation):
            raise ValueError(
                f"allocation={allocation!r} is no allocation; pass one such as OWL() of "
                "lightning_prune"
            )
        self.allocation = allocation
        self.keep_scores = keep_scores
        self.offload = offload
        self._made: list[Plan] = []

    cuts: ClassVar[bool] = False

    @property
    def state_key(self) -> str:
        """Tells two methods of one class apart in a checkpoint."""
        return repr(self)

    def blocks(self, anatomy: Anatomy) -> list[Block]:
        """Blocks `layer_start` to `layer_end`."""
        total = len(anatomy.blocks)
        end = total if self.layer_end is None else self.layer_end
        if not 0 <= self.layer_start < end <= total:
            raise ValueError(
                f"layer_start={self.layer_start}, layer_end={self.layer_end} is no range of "
                f"blocks: the model has {total}, and 0 <= layer_start < layer_end <= {total}"
            )
        chosen = anatomy.blocks[self.layer_start : end]
        # The attention or the MLP of a block may have been taken out.
        parts = [b.part(s for s in b.sites if s.module.weight.numel()) for b in chosen]
        return [part for part in parts if part.sites]

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
        if not isinstance(pl_module, CausalLM):
            raise TypeError(
                f"{type(self).__name__} prunes a lightning_prune.CausalLM; got "
                f"{type(pl_module).__name__}. With a training loop of your own use "
                "lightning_prune.prune(model, method, batches)."
            )
        pl_module.load()
        self._refuse(trainer, pl_module)
        for observer in observers_of(trainer):
            observer.before_prune(trainer, pl_module)
        identity = self._identity(trainer, pl_module)
        distributed.once(lambda: self.folder(trainer).mkdir(parents=True, exist_ok=True))
        for observer in observers_of(trainer, start=True):
            observer.on_prune_start(trainer, pl_module)
        plan = self._plan(trainer, pl_module, identity)
        self._made.append(plan)
        pl_module.plans.append(plan)
        for observer in observers_of(trainer):
            observer.on_prune_end(trainer, pl_module, plan)

    def _refuse(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """Everything that can be refused without a forward pass."""
        if self.cuts and any(plan.mask_names for plan in pl_module.plans):
            raise ValueError(
                f"{type(self).__name__} would cut a model that is masked already, and the masks "
                "would no longer fit. List methods that cut before methods that mask."
            )
        if self.plan is None:
            self.check(Anatomy(pl_module.base))
        data = getattr(trainer, "datamodule", None)
        if self.calibrates and not hasattr(data, "calibration_dataloader"):
            raise ValueError(
                f"{type(self).__name__} needs calibration text: give fit a datamodule with a "
                "calibration_dataloader, such as lightning_prune.TextData"
            )

    def _identity(self, trainer: Trainer, pl_module: CausalLM) -> dict[str, Any]:
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

    def _plan(self, trainer: Trainer, pl_module: CausalLM, identity: dict[str, Any]) -> Plan:
        folder, model = self.folder(trainer), pl_module.base
        saved = distributed.once(lambda: self._saved_plan(folder, identity))
        if saved is not None:
            rank_zero_info(f"Applying the plan in {folder}: same model, method and calibration.")
            surgery.apply(Anatomy(model), saved)
            return saved
        data: Any = getattr(trainer, "datamodule", None)
        batches = data.calibration_dataloader() if self.calibrates else None
        plan = self._prune(trainer, model, batches)
        if self.plan is None:  # a plan that was given keeps saying where it comes from
            plan.provenance["identity"] = identity
        if self.calibrates:
            found = {name: getattr(data, name, None) for name in _CALIBRATION}
            plan.provenance["calibration"] = {k: v for k, v in found.items() if v is not None}
        distributed.once(lambda: plan.save(folder, model))
        return plan

    def _prune(self, trainer: Trainer, model: PreTrainedModel, batches: Any) -> Plan:
        """Prune with this process's calibration batches; None: nothing is calibrated."""
        return pipeline.prune(model, self, batches, trainer.strategy.root_device)

    def _saved_plan(self, folder: Path, identity: dict[str, Any]) -> Plan | None:
        """The plan of an earlier start of the same run, if there is one."""
        if self.plan is not None:
            return None
        try:
            plan = Plan.load(folder)
        except FileNotFoundError:
            return None
        except ValueError as error:
            rank_zero_warn(f"{type(self).__name__} decides anew: {error}")
            return None
        complete = plan.has_scores or not self.keep_scores
        return plan if complete and plan.provenance.get("identity") == identity else None


# Settings that change no decision, or that are part of the identity otherwise.
_NO_DECISION = ("plan", "keep_scores", "offload")

_CALIBRATION = ("source", "nsamples", "length", "seed")


def methods_of(trainer: Trainer) -> list[PruningCallback]:
    """The pruning methods in a Trainer, in their order."""
    return [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # type: ignore[attr-defined]


def _fingerprint(data: Any) -> str:
    """A hash of the calibration tokens: the datamodule's own, or one of this process's batches."""
    if hasattr(data, "calibration_fingerprint"):
        return data.calibration_fingerprint()
    digest = hashlib.sha256()
    with isolate_rng():  # a loader that shuffles gives the same batches again
        for batch in data.calibration_dataloader():
            for name in sorted({"input_ids", "attention_mask"} & batch.keys()):
                digest.update(f"{name} {tuple(batch[name].shape)}".encode())
                digest.update(batch[name].long().cpu().numpy().tobytes())
    return digest.hexdigest()
