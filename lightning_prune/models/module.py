"""A Hugging Face model that Lightning prunes, trains, validates and tests, whatever its task is."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from peft import PeftModel
from transformers import PreTrainedModel

from lightning_prune.checkpoints.load import PlacementName
from lightning_prune.checks import known_arguments
from lightning_prune.models import lightning_checkpoint as checkpoints
from lightning_prune.models.activations import checkpoint_activations
from lightning_prune.models.averages import copy_again, refuse_averages
from lightning_prune.models.loading import DType, RandomWeights, Source, check_origin
from lightning_prune.models.monitors import check_monitors
from lightning_prune.models.optimization import Schedule, adamw, by_step, check_optimization
from lightning_prune.models.plans import Plans
from lightning_prune.models.precision import trained_in_float32
from lightning_prune.models.recovery.adapters import Adapter, AdapterName, named_adapter
from lightning_prune.models.recovery.distillation import Distillation
from lightning_prune.models.recovery.distiller import Distiller
from lightning_prune.models.recovery.merge import merge, rebuilder
from lightning_prune.models.recovery.student import Batch, Rebuild, blocks_of, plain
from lightning_prune.models.recovery.zeros import KeepMasks
from lightning_prune.models.seeding import common_seed, seed_step
from lightning_prune.models.sharding import data_mesh, shard
from lightning_prune.models.task import TaskModule
from lightning_prune.plan import Plan

__all__ = ["PrunableModule"]


class PrunableModule(TaskModule):
    """A Hugging Face model that can be pruned, recovered by training, validated and tested.

    Here is what is the same for every task: loading, plans, adapters, a teacher, zeros that stay,
    merging, optimizer, seeds, checkpoints, sharding. `TaskModule` says what a subclass adds.

    Checkpoints of a run with an adapter hold trainable weights only; the frozen ones come from
    `path` again, cut or masked by the run's plan, when `fit` resumes.

    Attributes:
        plans: what pruning has decided on this model, in the order in which it was applied; first
            the plan that lies beside it in its folder.
        rebuild: makes a plain model of a state dict, if the model is sharded; else None.
        seed: of the training, the same in all processes and when a run is resumed; None before it.

    Args:
        path: the model: a Hugging Face folder, a name on the hub, or "quickstart", which comes with
            the package.
        config: in place of path, keys (with model_type) of a model to train from random weights.
        adapter: small weights to train in place of the model's own: LoRA or QLoRA, "lora" or
            "qlora" for their defaults; "none": all weights are trained.
        dtype: type of the weights; "auto" is the type that they are saved in.
        attn_implementation: "eager", "sdpa", "flash_attention_2", ...; None: transformers chooses.
        placement: "memory": the weights are read; "checkpoint": they stay in their files, as do
            blocks that pruning changes, so that a model may be larger than memory.
        distillation: a teacher to learn from; None: from the labels alone.
        learning_rate: the highest learning rate of AdamW.
        weight_decay: AdamW's weight decay; norms and biases are not decayed.
        warmup_steps: steps in which the learning rate rises from 0.
        schedule: what the learning rate does then: stay, or fall to 0 by a line or a cosine.
        gradient_checkpointing: compute a block again for its backward pass: less memory, more time.
        trust_remote_code: run Python code that comes with the model.
        revision: branch, tag or commit of a hub model.

    Raises:
        ValueError: not one of path and config, an unknown model_type, or a negative number.
    """

    @known_arguments
    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        adapter: Adapter | AdapterName | None = None,
        dtype: DType = "auto",
        attn_implementation: str | None = None,
        placement: PlacementName = "memory",
        distillation: Distillation | None = None,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        gradient_checkpointing: bool = False,
        trust_remote_code: bool = False,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        check_origin(type(self).__name__, path, config, placement)
        check_optimization(learning_rate, weight_decay, warmup_steps)
        self._random = RandomWeights(config, self.auto_class) if config is not None else None
        self.path = path
        self.adapter = named_adapter(adapter) if isinstance(adapter, str) else adapter
        self.dtype_name = dtype
        self.attn_implementation = attn_implementation
        self.placement = placement
        self.distillation = distillation
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.gradient_checkpointing = gradient_checkpointing
        self.trust_remote_code = trust_remote_code
        self.revision = revision
        self.plans = Plans()
        self.rebuild: Rebuild | None = None
        self.seed: int | None = None
        self._zeros: KeepMasks | None = None
        self._distiller: Distiller | None = None

    # --- the model ---

    @cached_property
    def source(self) -> Source | None:
        """Where the model comes from; None if it starts from random weights."""
        if self.path is None:
            return None
        return Source(self.path, self.revision, self.trust_remote_code, self.auto_class)

    @property
    def origin(self) -> Source | RandomWeights:
        """Where the model comes from, or how it is made."""
        origin = self.source or self._random
        assert origin is not None, "the constructor sees to it"
        return origin

    def load(self) -> None:
        """Build the model on the CPU, unless it is there already.

        Raises:
            FileNotFoundError: there is no model of this path.
            ValueError: its type is unknown, its weights are incomplete; its plan, the adapter, the
                teacher, the strategy, or what a callback monitors does not fit.
        """
        if self.model is not None:
            return
        if self._trainer is not None:
            taught = () if self.distillation is None else self.distillation.logged
            check_monitors(self.trainer, (*self.logged, *taught), self)
        if self.device_mesh is not None:
            data_mesh(self.device_mesh)
        self.model = self.origin.model(self.dtype_name, self.attn_implementation, **self._placed())
        plan = self.origin.plan(self.model)
        if plan is not None:
            self.plans.append(plan)
        if self.distillation is not None:
            self.distillation.check(self)
        if self.adapter is not None:
            self.adapter.check(self.model, self.plan, sharded=self.device_mesh is not None)

    def _placed(self) -> dict[str, Any]:
        if self.placement == "memory":
            return {}
        root = None if self._trainer is None else Path(self.trainer.default_root_dir)
        return {"placement": self.placement, "changes": root and root / "weights"}

    @property
    def base(self) -> PreTrainedModel:
        """The Hugging Face model itself, also where an adapter has been put around it."""
        assert self.model is not None, "call load() first"
        return plain(self.model)

    @property
    def plan(self) -> Plan | None:
        """All that pruning has decided on this model, in one plan; None: nothing."""
        return self.plans.merged

    @property
    def adapted(self) -> bool:
        """Whether the adapter is attached."""
        return isinstance(self.model, PeftModel)

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread over the processes."""
        return self.rebuild is not None

    def setup(self, stage: str) -> None:
        """Load the model and, for `fit`, attach the adapter; pruning callbacks have run by then."""
        self.load()
        if stage == "fit":
            self._attach_adapter()
            if self.gradient_checkpointing:
                checkpoint_activations(self.base)
            self.train()
            copy_again(self)

    def configure_model(self) -> None:
        """Load the model, and shard it if the strategy is FSDP2 (ModelParallelStrategy)."""
        self.load()
        if self.device_mesh is None or self.sharded:
            return
        refuse_averages(self)
        assert self.model is not None
        self.rebuild = rebuilder(self.model)
        shard(self.model, blocks_of(self.base), self.device_mesh, str(self.trainer.precision))

    def place(self, model: PreTrainedModel) -> None:
        """Put another model where this one is trained: on its device, or sharded as it is."""
        if self.sharded:
            assert self.device_mesh is not None
            shard(model, blocks_of(model), self.device_mesh, str(self.trainer.precision))
        else:
            model.to(self.device)  # type: ignore[arg-type]

    def merge_adapter(self) -> None:
        """Merge the adapter into the weights, in place, where `merged_model` would make a copy.

        Raises:
            ValueError: the model is sharded.
        """
        if self.sharded:
            raise ValueError("a sharded model cannot be merged in place; use merged_model(module).")
        assert self.model is not None, "call load() first"
        self.model = merge(self.model, self.plan)

    def _attach_adapter(self) -> None:
        if self.adapter is None or self.adapted:
            return
        if self.sharded:
            raise ValueError(
                "the adapter has to be attached before the model is sharded: with "
                "ModelParallelStrategy, call fit before validate, test or predict."
            )
        device = self._trainer.strategy.root_device if self._trainer is not None else None
        self.model = self.adapter.attach(self.base, self.plan, device)

    def _apply(self, fn: Any, recurse: bool = True) -> PrunableModule:
        """With precision bf16-true, adapters stay in float32: bfloat16 loses updates."""
        super()._apply(trained_in_float32(fn) if self.adapted else fn, recurse)
        return self

    # --- training ---

    def configure_optimizers(self) -> Any:
        """AdamW over the trainable parameters, and the schedule, by the step."""
        steps = self.trainer.estimated_stepping_batches
        optimizer = adamw(self, self.learning_rate, self.weight_decay)
        return by_step(optimizer, self.schedule, self.warmup_steps, steps)

    def on_fit_start(self) -> None:
        """Load the teacher."""
        if self.distillation is not None:
            self._distiller = self.distillation.start(self)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The task's loss, or that of the distillation with its parts."""
        return super().losses(batch) if self._distiller is None else self._distiller.losses(batch)

    def on_fit_end(self) -> None:
        """Let the teacher go."""
        self._distiller = None

    def on_train_start(self) -> None:
        """Keep the zeros of masked weights, and the seed of the run."""
        self.seed = common_seed() if self.seed is None else self.seed
        if self.plan is not None:
            self._zeros = KeepMasks(self.base, self.plan, self.trainer.optimizers)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make what is random in a step, dropout, depend on the seed and the step."""
        assert self.seed is not None
        seed_step(self.seed, self.current_epoch, batch_idx)

    def on_train_end(self) -> None:
        """Let the masks go."""
        super().on_train_end()
        if self._zeros is not None:
            self._zeros.remove()
            self._zeros = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With an adapter, leave the frozen weights out, as `FSDP2` does of a sharded model."""
        checkpoints.note(checkpoint, self.plans, self.seed)
        if self.adapted and not self.sharded:
            checkpoints.leave_frozen_out(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen weights back, and check that the checkpoint fits the run and the model.

        Raises:
            ValueError: another pruning plan, or other names or shapes of weights.
        """
        fits = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if fits:
            checkpoints.check_plan(checkpoint, self.plan)
            self.seed = checkpoints.seed_of(checkpoint)
        if not self.sharded:
            resumes = fits or self._trainer is None
            checkpoints.check_weights(checkpoint, self, self.path, resumes, self.adapted)
