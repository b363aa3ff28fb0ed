"""Recovery with and without a teacher, at equal steps: perplexity of the validation text.

    python benchmarks/distillation.py                       # the quickstart model
    python benchmarks/distillation.py --model PATH --train TRAIN.txt --valid VALID.txt --length 192
    python benchmarks/distillation.py --tiny                # seconds, to see that it runs

Every row prunes the dense model anew (the same plan each time) and trains it on the same batches,
with the same learning rate and its cosine; only the loss is another one. The teacher is the dense
model. "step" is the processor time of a training step, in units of that of plain cross entropy.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from rich.console import Console
from rich.table import Table

from lightning_prune import CausalLM, Distillation, LoRA, StructuredOBS, TextData, Wanda
from lightning_prune.callbacks.base import PruningCallback

Make = Callable[[], PruningCallback]

CASES: dict[str, tuple[Make, LoRA | None, float]] = {
    "30% of units, all weights": (lambda: StructuredOBS(ratio=0.3), None, 5e-4),
    "30% of units, LoRA": (lambda: StructuredOBS(ratio=0.3), LoRA(r=16, alpha=32), 2e-3),
    "50% zeros, all weights": (lambda: Wanda(sparsity=0.5), None, 5e-4),
}
LOSSES: dict[str, dict[str, float] | None] = {
    "cross entropy": None,
    "distillation 0.5, T=2": {"weight": 0.5, "temperature": 2.0},
    "distillation 1.0, T=2": {"weight": 1.0, "temperature": 2.0},
    "distillation 1.0, T=1": {"weight": 1.0, "temperature": 1.0},
    "distillation 1.0, T=2, hidden 1": {"weight": 1.0, "temperature": 2.0, "hidden": 1.0},
}


class Clock(Callback):
    """The processor time of all training steps, and the perplexity before them."""

    seconds = 0.0
    _start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds += time.process_time() - self._start


def text(arguments: argparse.Namespace) -> TextData:
    return TextData(
        arguments.train,
        validation=arguments.valid,
        nsamples=arguments.nsamples,
        length=arguments.length,
        batch_size=arguments.batch_size,
    )


def trainer(arguments: argparse.Namespace, folder: str, *callbacks: Callback) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        max_steps=arguments.steps,
        max_epochs=-1,
        limit_val_batches=-(-arguments.windows // arguments.batch_size),
        val_check_interval=arguments.steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def recovered(
    arguments: argparse.Namespace, folder: str, case: str, loss: dict[str, float] | None
) -> tuple[float, float]:
    """Perplexity after the training, and the seconds that it took."""
    make, adapter, rate = CASES[case]
    seed_everything(0, verbose=False)
    module = CausalLM(
        arguments.model,
        adapter=adapter,
        distillation=None if loss is None else Distillation(**loss),  # type: ignore[arg-type]
        learning_rate=rate,
        schedule="cosine",
        warmup_steps=min(20, arguments.steps // 5),
    )
    clock = Clock()
    run = trainer(arguments, folder, make(), clock)
    run.fit(module, text(arguments))
    return float(run.callback_metrics["val_perplexity"]), clock.seconds


class Measure(Callback):
    """Perplexity as soon as the model is pruned; nothing is trained."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.limit_train_batches = 0


def pruned(arguments: argparse.Namespace, folder: str, case: str | None) -> float:
    """Perplexity without training; of the dense model if there is no case."""
    module = CausalLM(arguments.model)
    if case is not None:
        trainer(arguments, folder, CASES[case][0](), Measure()).fit(module, text(arguments))
    (result,) = trainer(arguments, folder).validate(module, text(arguments), verbose=False)
    return result["val_perplexity"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--train", default="builtin", help="text to calibrate and train on")
    parser.add_argument("--valid", help="text to measure on; default: the rest of --train")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--nsamples", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--windows", type=int, default=512, help="of the validation text")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="beginnings of their names")
    parser.add_argument("--losses", nargs="*", default=list(LOSSES), help="the same")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.steps, arguments.nsamples, arguments.windows = 2, 8, 16
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        console.print(f"dense: {pruned(arguments, folder, None):.2f}")
        for case in CASES:
            if not case.startswith(tuple(arguments.cases)):
                continue
            root = f"{folder}/{case}"
            title = f"{case}: {pruned(arguments, root, case):.2f} when pruned"
            table = Table("loss", "perplexity", "step", title=title)
            unit = None
            for name, loss in LOSSES.items():
                if not name.startswith(tuple(arguments.losses)):
                    continue
                perplexity, seconds = recovered(arguments, root, case, loss)
                unit = unit or seconds
                table.add_row(name, f"{perplexity:.2f}", f"{seconds / unit:.2f}")
            console.print(table)


if __name__ == "__main__":
    main()
