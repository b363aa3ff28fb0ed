"""How much of the lost perplexity comes back, and whether zeros do.

    python benchmarks/recovery.py                                    # the quickstart model
    python benchmarks/recovery.py --steps 100 --only "2:4"
    python benchmarks/recovery.py --model PATH --train TRAIN.txt --valid VALID.txt

Each run prunes in float32 and trains for some steps on the training text. Perplexity is that of the
validation text, which decides nothing. "back" is the part of the perplexity lost that comes back.
"zeros" are weights of the Linears in the blocks that are zero, before and after; "revived" are
those of the plan's zeros that are not zero after merging. "Masked after" trains a plain LoRA
and sets the zeros when it has been merged: peft and a mask, without sparse LoRA.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_prune import FLAP, CausalLM, LoRA, Plan, QLoRA, StructuredOBS, TextData, Wanda
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.callbacks.observers.base import PruneObserver
from lightning_prune.evaluation import perplexity
from lightning_prune.models import Adapter, merged_model
from lightning_prune.models.module import PrunableModule
from lightning_prune.surgery import apply_masks


class PlainLoRA(LoRA):
    """LoRA that knows of no masks."""

    def attach(self, model: Any, plan: Plan | None = None, device: Any = None) -> Any:
        """As LoRA does on a dense model."""
        return super().attach(model, None, device)


Run = tuple[Callable[[], PruningCallback], type[LoRA] | None, float]

RUNS: dict[str, Run] = {
    "Wanda 50%, sparse LoRA": (lambda: Wanda(sparsity=0.5), LoRA, 2e-3),
    "Wanda 50%, masked after": (lambda: Wanda(sparsity=0.5), PlainLoRA, 2e-3),
    "Wanda 50%, sparse QLoRA": (lambda: Wanda(sparsity=0.5), QLoRA, 2e-3),
    "Wanda 50%, all weights": (lambda: Wanda(sparsity=0.5), None, 5e-4),
    "Wanda 2:4, sparse LoRA": (lambda: Wanda(pattern="2:4"), LoRA, 2e-3),
    "Wanda 2:4, masked after": (lambda: Wanda(pattern="2:4"), PlainLoRA, 2e-3),
    "Wanda 2:4, sparse QLoRA": (lambda: Wanda(pattern="2:4"), QLoRA, 2e-3),
    "Wanda 2:4, all weights": (lambda: Wanda(pattern="2:4"), None, 5e-4),
    "FLAP 30%, LoRA": (lambda: FLAP(ratio=0.3), LoRA, 2e-3),
    "StructuredOBS 30%, LoRA": (lambda: StructuredOBS(ratio=0.3), LoRA, 2e-3),
    "StructuredOBS 30%, QLoRA": (lambda: StructuredOBS(ratio=0.3), QLoRA, 2e-3),
}


class Before(PruneObserver):
    """Perplexity of the dense and of the pruned model, and the zeros of the latter."""

    def __init__(self, validation: list[Any]) -> None:
        self.validation = validation
        self.dense = self.pruned = 0.0
        self.zeros = 0

    def on_prune_start(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Measure the dense model."""
        self.dense = perplexity(pl_module.base, self.validation)

    def on_prune_end(self, trainer: Trainer, pl_module: PrunableModule, plan: Plan) -> None:
        """Measure the pruned model."""
        self.pruned = perplexity(pl_module.base, self.validation)
        self.zeros = zeros_of(pl_module.base)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Merge nothing here."""


def zeros_of(model: nn.Module) -> int:
    """Weights of the blocks' Linears that are zero."""
    sites = (site for block in Anatomy(model).blocks for site in block.sites)
    return sum(int((site.module.weight == 0).sum()) for site in sites)


def recovered(arguments: argparse.Namespace, run: Run) -> list[str]:
    """One row of the table, after the name."""
    make, kind, rate = run
    seed_everything(0, verbose=False)
    adapter: Adapter | None = kind(r=arguments.rank, alpha=2 * arguments.rank) if kind else None
    module = CausalLM(
        arguments.model,
        adapter=adapter,
        dtype="float32",
        learning_rate=rate,
        schedule="cosine",
        warmup_steps=20,
    )
    length = arguments.length
    data = TextData(arguments.train, validation=arguments.valid, length=length, batch_size=16)
    assert module.tokenizer is not None, "a model folder with a tokenizer"
    data.attach(module.tokenizer, module.max_position_embeddings)
    before = Before(list(data.val_dataloader())[: arguments.windows // 16 or None])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder,
            max_steps=arguments.steps,
            callbacks=[make(), before],
            accelerator="auto",
            devices=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        start = time.perf_counter()
        trainer.fit(module, data)
        seconds = time.perf_counter() - start
    plan = module.plan
    assert plan is not None
    if isinstance(adapter, PlainLoRA):
        model: Any = module.model
        merged = model.merge_and_unload()
        weights = dict(merged.named_parameters())
        revived = sum(int(weights[n][~plan.mask(n)].count_nonzero()) for n in plan.mask_names)
        apply_masks(merged, plan)
    else:
        merged, revived = merged_model(module), 0  # which raises an error if there is one
    assert merged is not None
    after = perplexity(merged, before.validation)
    back = (before.pruned - after) / (before.pruned - before.dense)
    zeros = f"{before.zeros:,} → {zeros_of(merged):,}"
    return [
        f"{before.dense:.2f}",
        f"{before.pruned:.2f}",
        f"{after:.2f}",
        f"{back:.0%}",
        zeros,
        f"{revived:,}",
        f"{seconds:.0f} s",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--train", default="builtin")
    parser.add_argument("--valid", default=None)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--windows", type=int, default=0, help="of validation; 0: all")
    parser.add_argument("--only", default="", help="runs whose name has this in it")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    table = Table(
        "run", "dense", "pruned", "recovered", "back", "zeros", "revived", "time",
        title=f"{arguments.model}, {arguments.steps} steps, torch {torch.__version__}",
    )  # fmt: skip
    for name, run in RUNS.items():
        if arguments.only in name:
            table.add_row(name, *recovered(arguments, run))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
