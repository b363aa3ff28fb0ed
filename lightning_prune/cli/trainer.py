"""The Trainer of the command line: it can also prune without training, and compare methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import _TunerExitException

from lightning_prune.callbacks import PruningCallback
from lightning_prune.cli.grid import compare
from lightning_prune.cli.importance import measure_importance
from lightning_prune.cli.search import search
from lightning_prune.data import TextData
from lightning_prune.models import CausalLM

__all__ = ["PruneTrainer"]


class PruneTrainer(Trainer):
    """A Trainer that can also prune without training, and compare methods."""

    def prune(self, model: CausalLM, datamodule: TextData) -> None:
        """Prune, measure and save, without training.

        Everything that happens in `fit` before training starts: the callbacks are set up, and so
        prune, measure and save; no training text is read, and neither adapter nor optimizer made.

        Args:
            model: the model.
            datamodule: calibration and validation text.

        Raises:
            ValueError: no pruning method is among the callbacks.
        """
        callbacks: list[Callback] = self.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, PruningCallback) for callback in callbacks):
            raise ValueError(
                "nothing to prune with: name a method under trainer.callbacks, for example "
                "--trainer.callbacks+=Wanda --trainer.callbacks.sparsity=0.5"
            )
        last = _StopHere()
        before = self.limit_train_batches, self.fit_loop.max_epochs
        callbacks.append(last)
        self.limit_train_batches = 0  # no training text is needed
        self.fit_loop.max_epochs = 1  # or Lightning warns that it would train for long
        try:
            self.fit(model, datamodule=datamodule)
        finally:
            callbacks.remove(last)
            self.limit_train_batches, self.fit_loop.max_epochs = before

    def sweep(
        self,
        model: CausalLM,
        datamodule: TextData,
        methods: list[str | dict[str, Any]],
        sparsities: list[float | str],
    ) -> None:
        """Prune one model by several methods and sparsities, and compare them in one table.

        Each cell of the grid starts from the dense weights again. What is done already is read from
        the run's folder and not done again; a cell that fails is a row with its error.

        Args:
            model: the model.
            datamodule: calibration and validation text.
            methods: names of methods that set weights to zero, or their class_path and init_args
                (without sparsity and pattern), with a `name` for the table if wanted.
            sparsities: fractions of zeros, such as 0.5, and patterns N:M, such as "2:4" (N kept).
        """
        if self.world_size > 1:
            raise ValueError(
                f"sweep runs in one process, and trainer.devices={self.num_devices} asks for "
                f"{self.world_size}; set it to 1"
            )
        if any(isinstance(c, PruningCallback) for c in self.callbacks):  # type: ignore[attr-defined]
            raise ValueError("sweep takes its methods from `methods`, not from trainer.callbacks")
        root = Path(self.default_root_dir)
        compare(model, datamodule, methods, sparsities, self.strategy.root_device, root)

    def importance(
        self,
        model: CausalLM,
        datamodule: TextData,
        measure: str = "removal",
        part: str = "block",
        windows: int = 32,
    ) -> None:
        """Measure how important each block is, for allocations to use.

        On calibration text, which is training text: what is measured decides what is pruned, so the
        text that the result is judged by must not have a part in it.

        Args:
            model: the model.
            datamodule: calibration text.
            measure: "removal" (what the perplexity rises by without the block), "norm" (of the
                block's output), or how much a block changes what passes through it: "angular",
                "cosine", "mse", "mae".
            part: of the whole "block", or of its "attention" or "mlp".
            windows: calibration windows to take; 0: all.
        """
        if self.world_size > 1:
            raise ValueError(
                f"importance runs in one process, and trainer.devices={self.num_devices} asks for "
                f"{self.world_size}; set it to 1"
            )
        root = Path(self.default_root_dir)
        measure_importance(
            model, datamodule, measure, part, windows, self.strategy.root_device, root
        )

    def search(
        self,
        model: CausalLM,
        datamodule: TextData,
        method: str | dict[str, Any],
        vary: dict[str, list[Any]] | None = None,
        trials: int = 0,
        held_out: int = 16,
        step: float = 0.3,
        seed: int = 0,
    ) -> None:
        """Try one method's arguments, or search how its budget is best spread over blocks.

        With `vary`: the perplexity at every combination of values. With `trials`: starting from the
        same share for all blocks and from the method's own allocation, a little budget is moved
        between two blocks, and kept there if the perplexity on held-out training text falls; the
        best plan is written. What is done already is read from the run's folder.

        Args:
            model: the model.
            datamodule: calibration, training and validation text.
            method: a method by its class_path and init_args, with its budget.
            vary: by argument ("ratio", "allocation.alpha"), or "nsamples", the values to try; the
                last one is the axis of the picture.
            trials: how many times budget is moved.
            held_out: windows of training text that trials are judged by; they share no passage with
                the calibration and validation windows.
            step: how much is moved at most, in parts of the budget of a block.
            seed: of the trials.
        """
        if self.world_size > 1:
            raise ValueError(
                f"search runs in one process, and trainer.devices={self.num_devices} asks for "
                f"{self.world_size}; set it to 1"
            )
        if any(isinstance(c, PruningCallback) for c in self.callbacks):  # type: ignore[attr-defined]
            raise ValueError("search takes its method from `method`, not from trainer.callbacks")
        how = (trials, held_out, step, seed)
        root, device = Path(self.default_root_dir), self.strategy.root_device
        search(model, datamodule, method, vary or {}, *how, device=device, folder=root)


class _StopHere(Callback):
    """The last callback that is set up: it ends `fit` before the adapter is attached."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own way to end a run early and in order: everything is torn down, and
        # neither is an error reported nor are weights moved to the device.
        raise _TunerExitException
