"""A Hugging Face causal LM that Lightning can train, validate and test.

Axes: B windows of a batch, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property, reduce
from typing import Any

import torch
from lightning.pytorch import LightningModule
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightning_prune.anatomy import family_of
from lightning_prune.evaluation.metrics import Perplexity, next_token_nll
from lightning_prune.models import checkpoint as checkpoints
from lightning_prune.models.adapter import Adapter, AdapterName, named_adapter, trained_in_float32
from lightning_prune.models.averages import copy_again, refuse_averages
from lightning_prune.models.distillation import Distillation
from lightning_prune.models.distiller import Distiller
from lightning_prune.models.loading import DType, Source, checkpoint_activations, from_config
from lightning_prune.models.merge import Rebuild, merge, plain, rebuilder
from lightning_prune.models.monitors import check_monitors
from lightning_prune.models.optimization import Schedule, adamw, by_step
from lightning_prune.models.seeding import common_seed, seed_step
from lightning_prune.models.sharding import data_mesh, shard
from lightning_prune.models.zeros import KeepMasks
from lightning_prune.plan import Plan, joined
from lightning_prune.report import Report
from lightning_prune.tokens import labels_of

__all__ = ["CausalLM"]

Batch = Mapping[str, torch.Tensor]


class CausalLM(LightningModule):
    """A causal language model: loading, loss, perplexity, optimizer and adapter.

    Batches are dicts with `input_ids` (B, T) and optional `attention_mask` and `labels`. Perplexity
    is taken over the windows as they come: each token is predicted from those before it in its
    window, so it depends on their length.

    Checkpoints of a run with an adapter hold the trainable weights only. The frozen ones come from
    `path` again, cut or masked by the run's plan, when `fit` resumes.

    Attributes:
        model: the Hugging Face model, with the adapter around it while it is trained; None before
            `load`.
        plans: what pruning has decided on this model, in the order in which it was applied; first
            the plan that lies beside it in its folder.
        report: what was measured of it, in process 0, if a callback reports.
        seed: of the training, the same in all processes and when a run is resumed; None before it.

    Args:
        path: the model: a Hugging Face folder, a name on the hub, or "quickstart" for the small
            model that comes with the package.
        config: configuration (with its model_type) of a model to train from random weights; given
            instead of path.
        adapter: small weights to train instead of the model's own: an Adapter such as LoRA or
            QLoRA, "lora" or "qlora" for their defaults, or "none" to train all weights.
        dtype: type of the weights; "auto" is the type that they are saved in.
        attn_implementation: "eager", "sdpa", "flash_attention_2", ...; null lets transformers
            choose.
        distillation: a teacher to learn from; None: from the text alone.
        learning_rate: the highest learning rate of AdamW.
        weight_decay: AdamW's weight decay; norms and biases are not decayed.
        warmup_steps: steps in which the learning rate rises from 0.
        schedule: what the learning rate does then: stay, or fall to 0 by a line or a cosine.
        gradient_checkpointing: keep only the blocks' inputs for the backward pass, and compute the
            rest again: less memory, more time.
        trust_remote_code: run Python code that comes with the model.
        revision: branch, tag or commit of a hub model.

    Raises:
        ValueError: neither path nor config is given, or both; config's model_type is unknown; or
            a number is negative.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        adapter: Adapter | AdapterName | None = None,
        dtype: DType = "auto",
        attn_implementation: str | None = None,
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
        if (path is None) == (config is None):
            raise ValueError(
                "CausalLM takes path, a model to load, or config, one to train from random "
                f"weights: one of the two. Got path={path!r}, config={config!r}."
            )
        if not 0 <= learning_rate < math.inf or warmup_steps < 0 or weight_decay < 0:
            raise ValueError(
                f"learning_rate={learning_rate}, warmup_steps={warmup_steps}, weight_decay="
                f"{weight_decay}: none of them may be negative."
            )
        if config is not None:
            family_of(str(config.get("model_type")))
        self.path = path
        self.random_config = config
        self.adapter = named_adapter(adapter) if isinstance(adapter, str) else adapter
        self.dtype_name = dtype
        self.attn_implementation = attn_implementation
        self.distillation = distillation
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.gradient_checkpointing = gradient_checkpointing
        self.trust_remote_code = trust_remote_code
        self.revision = revision
        self.model: PreTrainedModel | PeftModel | None = None
        self.plans: list[Plan] = []
        self.report: Report | None = None
        self.perplexity = Perplexity()
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
        return Source(self.path, self.revision, self.trust_remote_code)

    def load(self) -> None:
        """Build the model on the CPU, unless it is there already.

        Raises:
            FileNotFoundError: there is no model of this path.
            ValueError: its type is unknown, its weights are incomplete, the plan beside it, the
                adapter or the teacher does not fit, the strategy asks for tensor parallelism, or a
                callback monitors what is not logged.
        """
        if self.model is not None:
            return
        check_monitors(self)
        if self.device_mesh is not None:
            data_mesh(self.device_mesh)
        if self.source is not None:
            self.model = self.source.model(self.dtype_name, self.attn_implementation)
            self.model.config._name_or_path = self.source.name  # not where the package is installed
            self.plans += [plan] if (plan := self.source.plan(self.model)) is not None else []
        else:
            assert self.random_config is not None
            self.model = from_config(self.random_config, self.dtype_name, self.attn_implementation)
        if self.distillation is not None:
            self.distillation.check(self)
        if self.adapter is not None:
            self.adapter.check(self.model, self.plan, sharded=self.device_mesh is not None)

    @property
    def base(self) -> PreTrainedModel:
        """The Hugging Face causal LM itself, also where an adapter has been put around it."""
        assert self.model is not None, "call load() first"
        return plain(self.model)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's tokenizer; None where it has none. May be set, e.g. to one just trained."""
        return self.source.tokenizer() if self.source is not None else None

    @cached_property
    def max_position_embeddings(self) -> int:
        """The longest window that the model is made for; known before the model is loaded.

        Raises:
            ValueError: no table describes this model type.
        """
        if self.source is not None:
            config = self.source.config()
            family_of(config.model_type)
            return config.max_position_embeddings
        return AutoConfig.for_model(**(self.random_config or {})).max_position_embeddings

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens the model has embeddings for; known before the model is loaded."""
        if self.source is not None:
            return self.source.config().vocab_size
        return AutoConfig.for_model(**(self.random_config or {})).vocab_size

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
        blocks = self.base.get_submodule(family_of(self.base.config.model_type).blocks)
        shard(self.model, blocks.children(), data_mesh(self.device_mesh), self.trainer.precision)

    @property
    def plan(self) -> Plan | None:
        """All that pruning has decided on this model, in one plan; None: nothing."""
        return reduce(joined, self.plans) if self.plans else None

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread over the processes."""
        return self.rebuild is not None

    def _attach_adapter(self) -> None:
        if self.adapter is None or isinstance(self.model, PeftModel):
            return
        if self.sharded:
            raise ValueError(
                "the adapter has to be attached before the model is sharded: with "
                "ModelParallelStrategy, call fit before validate, test or predict."
            )
        device = self._trainer.strategy.root_device if self._trainer is not None else None
        self.model = self.adapter.attach(self.base, self.plan, device)

    def _apply(self, fn: Any, recurse: bool = True) -> CausalLM:
        """With precision bf16-true and the like, adapters stay in float32: bfloat16 loses updates.

        Shards are of one type.
        """
        super()._apply(fn, recurse)
        if isinstance(self.model, PeftModel) and self.device_mesh is None:
            trained_in_float32(self.model)
        return self

    def merge_adapter(self) -> None:
        """Merge the adapter into the weights, in place, where `merged_model` would make a copy.

        Raises:
            ValueError: the model is sharded.
        """
        if self.sharded:
            raise ValueError("a sharded model cannot be merged in place; use merged_model(module).")
        assert self.model is not None, "call load() first"
        self.model = merge(self.model, self.plan)

    # --- steps ---

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits (B, T, V); position t predicts the token at t + 1."""
        assert self.model is not None, "call load() first"
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            raise ValueError(
                "CausalLM takes batches that are dicts with input_ids (B, T), and attention_mask "
                f"and labels if there are any; the data loader gives {type(batch).__name__}."
            )
        mask = batch.get("attention_mask")
        return self.model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False).logits

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss of the batch's next tokens, or that of the distillation."""
        if self._distiller is None:
            nll_BS, counted_BS = next_token_nll(self(batch), labels_of(batch))
            losses = {"loss": nll_BS.sum() / counted_BS.sum().clamp(min=1)}
        else:
            losses = self._distiller.losses(batch)
        for name, value in losses.items():
            self.log(f"train_{name}", value, prog_bar=name == "loss")
        return losses["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the perplexity."""
        self.perplexity.update(self(batch), labels_of(batch))

    def on_validation_epoch_end(self) -> None:
        """Log `val_loss` and `val_perplexity` over all tokens of all processes."""
        self._log_perplexity("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the perplexity."""
        self.perplexity.update(self(batch), labels_of(batch))

    def on_test_epoch_end(self) -> None:
        """Log `test_loss` and `test_perplexity` over all tokens of all processes."""
        self._log_perplexity("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Mean negative log likelihood of each window's next tokens, (B,)."""
        nll_BS, counted_BS = next_token_nll(self(batch), labels_of(batch))
        return nll_BS.sum(dim=1) / counted_BS.sum(dim=1).clamp(min=1)

    def _log_perplexity(self, prefix: str) -> None:
        perplexity = self.perplexity.compute()
        self.perplexity.reset()
        # The values are the same in all processes; sync_dist only tells Lightning so.
        self.log(f"{prefix}_loss", perplexity.log(), sync_dist=True)
        self.log(f"{prefix}_perplexity", perplexity, prog_bar=True, sync_dist=True)

    # --- training ---

    def configure_optimizers(self) -> Any:
        """AdamW over the trainable parameters, and the schedule, by the step."""
        optimizer = adamw(self, self.learning_rate, self.weight_decay)
        total = self.trainer.estimated_stepping_batches
        return by_step(optimizer, self.schedule, self.warmup_steps, total)

    def on_fit_start(self) -> None:
        """Load the teacher."""
        if self.distillation is not None:
            self._distiller = self.distillation.start(self)

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
        if self._zeros is not None:
            self._zeros.remove()
            self._zeros = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With an adapter, leave the frozen weights out. A sharded model is saved whole."""
        checkpoints.reduce(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen weights back, and check that the checkpoint fits the run and the model.

        Raises:
            ValueError: it does not: another pruning plan, or other names or shapes of weights.
        """
        checkpoints.complete(self, checkpoint)
