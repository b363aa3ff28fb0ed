"""When pruning happens inside a Trainer, and the two families of methods.

A pruning callback acts in `setup(stage="fit")`: the process group is up, the model is on the CPU,
and neither adapter, nor wrapper, nor optimizer exists yet, so shapes may still change.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune import distributed, pipeline, surgery
from lightning_prune.allocation import Allocation
from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.method import Decision, Method
from lightning_prune.models import CausalLM
from lightning_prune.plan import Plan
from lightning_prune.selection import (
    Pattern,
    keep_n_of_m,
    keep_per_matrix,
    keep_per_row,
    keep_units,
    removed_count,
)

__all__ = ["PruneObserver", "PruningCallback", "UnitPruning", "WeightPruning"]


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
        if self.cuts and any(plan.mask_names for plan in pl_module.plans):
            raise ValueError(
                f"{type(self).__name__} would cut a model that is masked already, and the masks "
                "would no longer fit. List methods that cut before methods that mask."
            )
        observers = [c for c in trainer.callbacks if isinstance(c, PruneObserver)]  # type: ignore[attr-defined]
        for observer in observers:
            observer.on_prune_start(trainer, pl_module)
        self.plan_ = self._plan(trainer, pl_module)
        pl_module.plans.append(self.plan_)
        for observer in observers:
            observer.on_prune_end(trainer, pl_module, self.plan_)

    def _plan(self, trainer: Trainer, pl_module: CausalLM) -> Plan:
        folder = self._folder(trainer)
        data: Any = getattr(trainer, "datamodule", None)
        calibrates = self.evidence is not None and self.plan is None
        if calibrates and not hasattr(data, "calibration_dataloader"):
            raise ValueError(
                f"{type(self).__name__} needs calibration text: give fit a datamodule with a "
                "calibration_dataloader, such as lightning_prune.TextData"
            )
        identity = {
            "call": repr(self),
            "model": pipeline.fingerprint(pl_module.base),
            "calibration": data.calibration_fingerprint() if calibrates else None,
        }
        saved = trainer.strategy.broadcast(_saved_plan(folder, identity), src=0)
        if saved is not None:
            rank_zero_info(f"Applying the plan in {folder}: same model, method and calibration.")
            surgery.apply(Anatomy(pl_module.base), saved)
            return saved
        device = trainer.strategy.root_device
        batches = data.calibration_dataloader() if calibrates else None
        plan = pipeline.prune(pl_module.base, self, batches, device)
        if trainer.is_global_zero:
            plan.provenance["identity"] = identity
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


class WeightPruning(PruningCallback):
    """Methods that set single weights to zero, in every Linear of the chosen blocks.

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        settings: the arguments of `PruningCallback`.

    Raises:
        ValueError: sparsity out of range, a pattern that is none, both, or neither.
    """

    scope: ClassVar[str] = "row"

    def __init__(
        self, sparsity: float | None = None, pattern: str | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.sparsity, self.pattern = sparsity, pattern
        if self.plan is None and (sparsity is None) == (pattern is None):
            raise ValueError(
                f"{type(self).__name__} takes sparsity=0.5 or pattern='2:4', one of the two; got "
                f"sparsity={sparsity}, pattern={pattern!r}"
            )
        if sparsity is not None and not 0 <= sparsity < 1:
            raise ValueError(
                f"sparsity={sparsity} is not in [0, 1); it is the fraction of weights set to "
                "zero, 0.5 for half of them"
            )
        self._pattern = Pattern.parse(pattern) if pattern is not None else None

    @property
    def budget(self) -> float:
        """Fraction of zeros."""
        return self._pattern.sparsity if self._pattern else float(self.sparsity or 0)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a pattern that does not divide some width, and a sparsity that removes nothing."""
        sites = [site for block in self.blocks(anatomy) for site in block.sites]
        if self._pattern is None:
            most = max(s.module.in_features * self._rows_compared(s) for s in sites)
            if removed_count(most, self.budget) == 0:
                raise ValueError(
                    f"sparsity={self.sparsity} of {most} weights in a {self.scope} removes none. "
                    f"Ask for sparsity={math.ceil(1000 / most) / 1000} or more."
                )
            return
        for site in sites:
            if site.module.in_features % self._pattern.group:
                raise ValueError(
                    f"{self.pattern} needs input features divisible by {self._pattern.group}; "
                    f"{site.name} has {site.module.in_features}. Use sparsity="
                    f"{self._pattern.sparsity:g}, or a pattern that divides it."
                )

    def _rows_compared(self, site: Site) -> int:
        return site.module.out_features if self.scope == "matrix" else 1

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Score every weight of every site."""
        return {
            site.weight_name: self.score_site(site, evidence.get(site.table.reads))
            for site in block.sites
        }

    @abstractmethod
    def score_site(self, site: Site, evidence: Any) -> torch.Tensor:
        """Score one site's weight, (O, I), from the evidence of its input."""

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Keep by pattern, or by exact count in the method's scope."""
        if self._pattern is not None:
            return Decision({n: keep_n_of_m(s, self._pattern) for n, s in scores.items()})
        keep = {"row": keep_per_row, "matrix": keep_per_matrix}[self.scope]
        return Decision({name: keep(score_OI, share) for name, score_OI in scores.items()})


class UnitPruning(PruningCallback):
    """Methods that remove whole units, so that the model gets smaller.

    Args:
        ratio: fraction of the units to remove from each block, in (0, 1).
        attention: remove GQA groups: query heads with the key/value head that they share.
        mlp: remove MLP neurons.
        settings: the arguments of `PruningCallback`.

    Raises:
        ValueError: the ratio is out of range, or neither attention nor mlp is asked for.
    """

    survey = True
    cuts = True

    def __init__(
        self, ratio: float = 0.25, attention: bool = True, mlp: bool = True, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.ratio, self.attention, self.mlp = ratio, attention, mlp
        if not 0 < ratio < 1:
            raise ValueError(
                f"ratio={ratio} is not in (0, 1); it is the fraction of units removed, and 1 "
                "would remove every GQA group and every neuron"
            )
        if not self.kinds:
            raise ValueError("attention=False, mlp=False leaves nothing to prune; set one of them")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of units asked for."""
        return ("group",) * self.attention + ("neuron",) * self.mlp

    @property
    def budget(self) -> float:
        """The ratio."""
        return self.ratio

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a ratio too small to remove a unit of a kind that was asked for."""
        for kind, switch in (("group", "attention"), ("neuron", "mlp")):
            if kind not in self.kinds:
                continue
            most = max(block.units(kind) for block in self.blocks(anatomy))
            if removed_count(most, self.ratio) == 0:
                advice = (
                    f"Ask for ratio={math.ceil(1000 / most) / 1000} or more, or set {switch}=False."
                    if most > 1
                    else f"Its only one must stay; set {switch}=False."
                )
                raise ValueError(
                    f"ratio={self.ratio} of {most} {kind}s in a block removes none. {advice}"
                )

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Keep the highest scores of each kind; of the share, as many whole units as fit."""
        return Decision(
            kept={
                kind: keep_units(score_U, removed_count(score_U.numel(), share))
                for kind, score_U in scores.items()
            }
        )
