"""When pruning happens inside a Trainer.

A pruning callback acts in `setup(stage="fit")`: the process group is up, the model is on the CPU,
and neither adapter, nor wrapper, nor optimizer exists yet, so shapes may still change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune import distributed, pipeline, surgery
from lightning_prune.allocation import Allocation
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.method import Method
from lightning_prune.models import CausalLM
from lightning_prune.plan import Plan

__all__ = ["PruneObserver", "PruningCallback"]


class PruneObserver(Callback):
    """A callback that is told when a model is pruned, wherever it stands in the list."""

    def on_prune_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """The model is loaded and dense (or as the previous method left it)."""

    def on_prune_end(self, trainer: Trainer, pl_module: CausalLM, plan: Plan) -> None:
        """The plan has been applied; there is no adapter yet."""


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
        self.allocation = allocation
        self.keep_scores = keep_scores
        self.offload = offload
        self.plan_: Plan | None = None

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
        return anatomy.blocks[self.layer_start : end]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prune, or apply the saved plan; once, and only for `fit`."""
        if stage != "fit" or self.plan_ is not None:
            return
        if not isinstance(pl_module, CausalLM):
            raise TypeError(
                f"{type(self).__name__} prunes a lightning_prune.CausalLM; got "
                f"{type(pl_module).__name__}. With a training loop of your own use "
                "lightning_prune.prune(model, method, batches)."
            )
        pl_module.load()
        identity = self._identity(trainer, pl_module)
        observers = [c for c in trainer.callbacks if isinstance(c, PruneObserver)]  # type: ignore[attr-defined]
        for observer in observers:
            observer.on_prune_start(trainer, pl_module)
        self.plan_ = self._plan(trainer, pl_module, identity)
        pl_module.plans.append(self.plan_)
        for observer in observers:
            observer.on_prune_end(trainer, pl_module, self.plan_)

    def _identity(self, trainer: Trainer, pl_module: CausalLM) -> dict[str, Any]:
        """What a plan depends on; and every refusal that needs no forward pass."""
        if self.cuts and any(plan.mask_names for plan in pl_module.plans):
            raise ValueError(
                f"{type(self).__name__} would cut a model that is masked already, and the masks "
                "would no longer fit. List methods that cut before methods that mask."
            )
        data: Any = getattr(trainer, "datamodule", None)
        if self.plan is None:
            self.check(Anatomy(pl_module.base))
        if self._calibrates and not hasattr(data, "calibration_dataloader"):
            raise ValueError(
                f"{type(self).__name__} needs calibration text: give fit a datamodule with a "
                "calibration_dataloader, such as lightning_prune.TextData"
            )
        return {
            "call": repr(self),
            "model": pipeline.fingerprint(pl_module.base),
            "calibration": data.calibration_fingerprint() if self._calibrates else None,
        }

    @property
    def _calibrates(self) -> bool:
        return self.evidence is not None and self.plan is None

    def _plan(self, trainer: Trainer, pl_module: CausalLM, identity: dict[str, Any]) -> Plan:
        folder = self._folder(trainer)
        saved = _saved_plan(folder, identity) if self.plan is None else None
        saved = trainer.strategy.broadcast(saved, src=0)
        if saved is not None:
            rank_zero_info(f"Applying the plan in {folder}: same model, method and calibration.")
            surgery.apply(Anatomy(pl_module.base), saved)
            return saved
        data: Any = getattr(trainer, "datamodule", None)
        batches = data.calibration_dataloader() if self._calibrates else None
        plan = pipeline.prune(pl_module.base, self, batches, trainer.strategy.root_device)
        if trainer.is_global_zero:
            plan.provenance["identity"] = identity
            if self._calibrates:
                names = ("source", "nsamples", "length", "seed")
                plan.provenance["calibration"] = {n: getattr(data, n, None) for n in names}
            plan.save(folder)
        distributed.barrier()
        return plan

    def _folder(self, trainer: Trainer) -> Path:
        """`plan` in the run's folder; with several methods `plan-1`, `plan-2`, … in their order."""
        methods = [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # type: ignore[attr-defined]
        name = "plan" if len(methods) == 1 else f"plan-{methods.index(self) + 1}"
        return Path(trainer.default_root_dir) / name


def _saved_plan(folder: Path, identity: dict[str, Any]) -> Plan | None:
    """The plan of an earlier start of the same run, if there is one."""
    try:
        plan = Plan.load(folder)
    except (FileNotFoundError, ValueError):
        return None
    return plan if plan.provenance.get("identity") == identity else None
