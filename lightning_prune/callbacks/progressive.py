"""Pruning in rounds, inside a Trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedModel

from lightning_prune import pipeline
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.checks import argument_defaults
from lightning_prune.data.protocols import Windowed
from lightning_prune.methods.base import Decision
from lightning_prune.methods.units import UnitPruning
from lightning_prune.models.module import PrunableModule
from lightning_prune.pipeline.provenance import provenance
from lightning_prune.pipeline.recovery import Recovery
from lightning_prune.pipeline.rounds import Gate, Round, check_rounds, prune_in_rounds
from lightning_prune.pipeline.unfinished import Unfinished
from lightning_prune.plan import Plan

__all__ = ["Progressive"]


class Progressive(PruningCallback):
    """Another method in rounds: what is left after each is scored anew, under a gate on quality.

    After round k of n, k/n of the method's budget is gone, and of the share that its allocation
    gives each block of the dense model; the last round meets both. The
    perplexity on the validation text is measured after every round; a gate on it makes that text
    part of a decision, so judge the result by the test text. To take a round back needs one copy
    of the model in memory. `plan.provenance["rounds"]` says what each round came to.

    With `recover_steps`, all weights are trained on the training text after every round, in float32
    and with AdamW's two moments, so with four times the model's memory; they become part of
    the saved plan, so that the run can be started again.

    A run that is stopped before the last round begins again with the first.

    Cost: the method's, once a round, and one pass over the validation text.

    Args:
        method: one that cuts units, with its whole budget, such as `FLAP(ratio=0.5)`.
        rounds: how many.
        max_perplexity: the gate: stop when the perplexity is higher.
        max_increase: the gate in multiples of the dense model's perplexity, such as 1.5.
        on_gate: "rollback" takes the round back that went over the gate; "stop" keeps it.
        recover_steps: training steps after each round; 0: none.
        learning_rate: of that training.
        seed: of that training.

    Raises:
        ValueError: an argument is out of range, or the method does not cut units.
    """

    cuts = True

    method: UnitPruning
    rounds: int = 4
    max_perplexity: float | None = None
    max_increase: float | None = None
    on_gate: Literal["rollback", "stop"] = "rollback"
    recover_steps: int = 0
    learning_rate: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rounds", self.rounds >= 1, "it is 1 or more")
        self.require("recover_steps", self.recover_steps >= 0, "it is 0 or more")
        self.require("learning_rate", self.learning_rate > 0, "it is above 0")
        for name in ("layer_start", "layer_end", "keep_scores", "offload"):
            default = argument_defaults(Progressive)[name]
            self.require(name, getattr(self, name) == default, "it is an argument of the method")
        _ = self.gate  # refuses its own

    @property
    def gate(self) -> Gate:
        """The limit on the perplexity."""
        return Gate(self.max_perplexity, self.max_increase, self.on_gate)

    @property
    def scoring(self) -> UnitPruning:
        """The method that is run in rounds."""
        return self.method

    @property
    def calibrates(self) -> bool:
        """Whether the method needs calibration batches."""
        return self.plan is None and self.method.calibrates

    def blocks(self, anatomy: Anatomy) -> list[Block]:
        """The blocks that the method works on in every round."""
        return self.method.blocks(anatomy)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse what the method refuses, and rounds in which nothing would go."""
        check_rounds(anatomy, self.method, self.rounds)

    def budget(self, anatomy: Anatomy) -> float:
        """Not for one go.

        Raises:
            ValueError: always: `prune` asks for it, and takes one method in one go.
        """
        raise ValueError(
            "Progressive works in a Trainer; without one use lightning_prune.prune_in_rounds("
            f"model, {self.method!r}, batches, rounds={self.rounds})"
        )

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The scores of the method that is run in rounds."""
        return self.method.score(block, evidence)

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """The selection of the method that is run in rounds."""
        return self.method.select(block, scores, share)

    def _identity(self, trainer: Trainer, pl_module: PrunableModule) -> dict[str, Any]:
        identity = super()._identity(trainer, pl_module)
        data: Any = getattr(trainer, "datamodule", None)
        if self.gate.asked:
            identity["validation"] = _fingerprint(data, "validation")
        if self.recover_steps:
            identity["training"] = _fingerprint(data, "train")
            identity["processes"] = trainer.world_size
        return identity

    def _prune(
        self,
        trainer: Trainer,
        model: PreTrainedModel,
        batches: Iterable[Mapping[str, torch.Tensor]] | None,
        unfinished: Unfinished | None,
    ) -> Plan:
        device = trainer.strategy.root_device
        if self.plan is not None:
            return pipeline.prune(model, self, device=device)
        data: Any = getattr(trainer, "datamodule", None)
        recovery = None
        if self.recover_steps:
            text = data.train_dataloader()
            recovery = Recovery(self.recover_steps, text, self.learning_rate, self.seed)

        def told(round_: Round) -> None:
            rank_zero_info(str(round_))

        head = provenance(model, self)
        plan = prune_in_rounds(
            model,
            self.method,
            batches,
            self.rounds,
            validation=None if data is None else data.val_dataloader(),
            gate=self.gate,
            recovery=recovery,
            device=device,
            told=told,
        )
        plan.provenance |= head
        return plan


def _fingerprint(data: Any, use: str) -> str:
    """A hash of the validation or training data."""
    loader = data.val_dataloader() if use == "validation" else data.train_dataloader()
    kept = data.windows.get(use) if isinstance(data, Windowed) else None  # of all processes
    tensors = (t for batch in loader for _, ts in sorted(batch.items()) for t in ts)
    digest = hashlib.sha256()
    for tensor in tensors if kept is None else kept.windows:
        digest.update(tensor.cpu().contiguous().numpy().tobytes() + b"|")
    return digest.hexdigest()
