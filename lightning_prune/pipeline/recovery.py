"""A few steps of training between two rounds of pruning, without a Trainer.

Axes: N places at which something is asked of the model, K classes that its head tells apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import TaskLoss
from lightning_prune.sweep import home_device
from lightning_prune.tokens import IGNORED

__all__ = ["Recovery"]

Batch = Mapping[str, torch.Tensor]


@dataclass
class Recovery:
    """Training of all weights with AdamW, at a constant rate and without weight decay.

    The loss is the mean over all that the batches of all processes ask for, such as every next
    token. Weights are trained in float32 and put back into their own type. The optimizer starts
    anew every time, and the text goes on where the time before has ended.

    Args:
        steps: after each round.
        batches: training text, this process's share; read again from the start when it is through.
        learning_rate: of AdamW.
        seed: of what is drawn in training (dropout).
    """

    steps: int
    batches: Iterable[Batch]
    learning_rate: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        self._text = _again_and_again(self.batches)

    def __call__(self, model: nn.Module, device: torch.device | None) -> None:
        """Train the model in place.

        Raises:
            ValueError: a loss is not finite, or there is no training text.
        """
        home = home_device(model)
        device = home if device is None else device
        parameters = list(model.parameters())
        was = [(p.dtype, p.requires_grad) for p in parameters]
        training = model.training
        with torch.random.fork_rng(_cuda(device)), torch.enable_grad():
            torch.manual_seed(self.seed + distributed.rank())
            try:
                model.to(device).train()
                for parameter in parameters:
                    parameter.data = parameter.data.float()
                    parameter.requires_grad_(True)
                optimizer = torch.optim.AdamW(parameters, self.learning_rate, weight_decay=0.0)
                for step in range(self.steps):
                    self._step(model, optimizer, next(self._text), device, step)
            finally:
                for parameter, (dtype, wanted) in zip(parameters, was, strict=True):
                    parameter.grad = None
                    parameter.data = parameter.data.to(dtype)
                    parameter.requires_grad_(wanted)
                model.to(home).train(training)

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        device: torch.device,
        step: int,
    ) -> None:
        task = Anatomy(model).task
        moved = {k: tensor.to(device) for k, tensor in task.checked(batch, model).items()}
        logits = model(**task.called_with(moved), **task.arguments).logits
        logits_NK, target_N = task.answers(logits, moved)
        loss_N = TaskLoss().values(logits_NK, target_N)
        sums = torch.stack([loss_N.detach().sum().double(), (target_N != IGNORED).sum().double()])
        loss, count = distributed.sum_(sums).tolist()
        if not torch.isfinite(torch.tensor(loss)):
            raise ValueError(
                f"recovery: the loss of step {step + 1} is {loss}; ask for a lower learning_rate "
                f"than {self.learning_rate:g}"
            )
        optimizer.zero_grad()
        (loss_N.sum() / max(count, 1)).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                distributed.sum_(parameter.grad)
        optimizer.step()


def _again_and_again(batches: Iterable[Batch]) -> Iterator[Batch]:
    epoch = 0
    while True:
        sampler: Any = getattr(batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("recovery: there is no training text; pass a list of batches")
        epoch += 1


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
