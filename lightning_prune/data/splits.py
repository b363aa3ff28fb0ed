"""What data modules with train, validation and test parts have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from lightning_prune.data.loaders import Collate, ResumableLoader, ShardSampler, loader

__all__ = ["Splits"]


class Splits(LightningDataModule):
    """Loaders of the train, validation and test part of what a subclass reads.

    Attributes:
        batch_size: samples in a batch, in each process.
        num_workers: processes that load training batches.
        seed: of the order of training.
    """

    batch_size: int
    num_workers: int
    seed: int

    @abstractmethod
    def _loader(self, use: str) -> DataLoader[Any]:
        """Samples of "train", shuffled, of "validation" or of "test"."""

    def train_dataloader(self) -> DataLoader[Any]:
        """The train part, shuffled."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation part, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """The test part, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test part, in order."""
        return self._loader("test")

    def _needed(self, stage: str) -> Iterator[str]:
        """The parts that a stage of Lightning's looks at."""
        needed = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        trains = self.trainer is None or self.trainer.limit_train_batches != 0
        return (use for use in needed if use != "train" or trains)

    def _place(self) -> tuple[int, int]:
        """The number of this process, and how many there are."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _shared(
        self, samples: Dataset[Any], collate: Collate, training: bool, alike: int | None = None
    ) -> DataLoader[Any]:
        """This process's share of samples; shuffled for training, where it can be resumed.

        Args:
            samples: of one part.
            collate: makes a batch.
            training: whether they are trained on.
            alike: as of `ShardSampler`.
        """
        sampler = ShardSampler(samples, *self._place(), training, self.seed, alike)
        workers = self.num_workers if training else 0
        made = loader(samples, sampler, self.batch_size, collate, workers)
        if isinstance(made, ResumableLoader) and self.trainer is not None:
            progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
            made.finished = lambda: progress.current.processed
        return made
