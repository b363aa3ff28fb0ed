"""`lightning-prune predict`: the loss of every window, in a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prune import distributed
from lightning_prune.commands.output import say
from lightning_prune.data.protocols import begun_with
from lightning_prune.files import atomic_write
from lightning_prune.models import CausalLM
from lightning_prune.report.files import print_files
from lightning_prune.tokens import begun, labels_of

__all__ = ["WritePredictions"]


class WritePredictions(Callback):
    """`predictions.csv` in the run's folder: loss and perplexity of every window; their mean said.

    Columns: the window's number in the text, the tokens predicted in it, their mean negative log
    likelihood in nats, and its exponential.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, float]] = []
        self._seen = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the batch's windows; those that only fill up a process's share count for nothing."""
        counted_B = (labels_of(batch)[:, 1:] != -100).sum(dim=1).tolist()
        for tokens, nll in zip(counted_B, outputs.tolist(), strict=True):
            if tokens:
                window = self._seen * trainer.world_size + trainer.global_rank
                self._rows.append((window, tokens, nll))
            self._seen += 1

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather, write and say."""
        rows = sorted(_gathered(self._rows))
        self._rows, self._seen = [], 0
        if not trainer.is_global_zero or not rows:
            return
        path = Path(trainer.default_root_dir) / "predictions.csv"
        with atomic_write(path) as file:
            file.write("window,tokens,nll,perplexity\n")
            for window, tokens, nll in rows:
                file.write(f"{window},{tokens},{nll:.6f},{_perplexity(nll):.6g}\n")
        total = sum(tokens for _, tokens, _ in rows)
        mean = math.fsum(tokens * nll for _, tokens, nll in rows) / total
        assert isinstance(pl_module, CausalLM)
        data: Any = getattr(trainer, "datamodule", None)
        begin = begun(begun_with(data, "test"))
        say(
            f"{pl_module.path}: {len(rows)} windows{begin}, {total:,} tokens predicted, mean "
            f"negative log likelihood {mean:.4f}, perplexity {_perplexity(mean):.4f}"
        )
        print_files({"predictions.csv": str(path)})


def _gathered(rows: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """The rows of all processes."""
    if distributed.world_size() == 1:
        return rows
    everyone: list[Any] = [None] * distributed.world_size()
    dist.all_gather_object(everyone, rows)
    return [row for part in everyone for row in part]


def _perplexity(nll: float) -> float:
    return math.exp(nll) if nll < 700 else math.inf
