"""Calibration, training and evaluation images as a LightningDataModule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from lightning_prune.checks import known_arguments
from lightning_prune.data.images.preparation import Preparation, Prepared, collate_images
from lightning_prune.data.images.sources import read_images
from lightning_prune.data.loaders import calibration_loader, check_amounts
from lightning_prune.data.protocols import SEEN
from lightning_prune.data.splits import Splits

__all__ = ["ImageData"]


class ImageData(Splits):
    """Images with their classes, for calibration, training, validation and test.

    A source is "builtin" (small images that are drawn), a folder with a folder of images for each
    class, or with one for train, validation and test that has such folders in it, a folder with IDX
    files such as MNIST's, one saved by `datasets`, or a dataset on the hub. Validation and test
    stand in for each other where a source has one of them; where it has neither, a share of its
    images, drawn at random, stands in for both.

    The model's own image processor makes pixels of images, and its names of classes say which is
    which; where it knows none of the names, and there are as many, their order does. Images are not
    changed at random: mixup and the like are a `training_step`, or a data module, of your own.

    Args:
        source: where images come from.
        calibration: another source for calibration, whose train split is used.
        validation: another source for validation.
        test: another source for test.
        nsamples: number of calibration images, drawn from the train split.
        classes: only images of these classes, by name; None: all.
        batch_size: images in a batch, in each process.
        seed: of the calibration images and of the order of training.
        image_column: of a dataset, the column that holds the images.
        label_column: of a dataset, the column that holds the classes.
        held_out: of a source without validation and test images, the share that stands in for them.
        num_workers: processes that load training batches.
    """

    @known_arguments
    def __init__(
        self,
        source: str = "builtin",
        *,
        calibration: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        nsamples: int = 128,
        classes: Sequence[str] | None = None,
        batch_size: int = 32,
        seed: int = 0,
        image_column: str = "image",
        label_column: str = "label",
        held_out: float = 0.1,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_amounts(nsamples, batch_size, num_workers)
        if not 0 < held_out < 1:
            raise ValueError(f"held_out={held_out}; a share between 0 and 1 is needed")
        others = {"calibration": calibration, "validation": validation, "test": test}
        self.sources = {"train": source, **{use: other or source for use, other in others.items()}}
        self.source, self.nsamples, self.classes = source, nsamples, classes
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.image_column, self.label_column = image_column, label_column
        self.held_out = held_out
        self.preparation: Preparation | None = None
        self.images: dict[str, Prepared] = {}

    def attach(self, preparation: Preparation) -> ImageData:
        """Prepare images as a model asks for them; `setup` does this too.

        Args:
            preparation: of an `ImageClassifier`.
        """
        if preparation != self.preparation:
            self.images.clear()
        self.preparation = preparation
        return self

    def setup(self, stage: str) -> None:
        """Take the preparation from the Trainer's module; list the images that a stage needs.

        Raises:
            FileNotFoundError: there are no such images.
            ValueError: they do not go with the model, or some of the files are no images.
        """
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        if getattr(module, "preparation", None) is not None:
            self.attach(module.preparation)
        for use in self._needed(stage):
            self._images(use)

    def calibration_dataloader(self) -> DataLoader[Any]:
        """This process's share of the calibration batches.

        The batches are the same whatever the number of processes; each takes every n-th of them.

        Raises:
            ValueError: there are fewer images than are asked for, or fewer batches than processes.
        """
        how = self.batch_size, collate_images, *self._place(), "images"
        return calibration_loader(self._images("calibration"), *how)

    def described(self, use: str, most: int | None = None) -> str:
        """What the figures of a use are of: source, part and number of images.

        Args:
            use: "validation" or "test".
            most: so many are looked at, if there are more; None: all.
        """
        pictures = self._images(use).pictures
        count = len(pictures) if most is None else min(most, len(pictures))
        part = f" ({pictures.part})" if pictures.part else ""
        return f"{self.sources[use]}{part}: {count:,} images of {len(pictures.classes)} classes"

    def _images(self, use: str) -> Prepared:
        if self.preparation is None:
            raise ValueError(
                "nobody has said how images are prepared: give the Trainer an ImageClassifier, or "
                "call attach(module.preparation)"
            )
        if use not in self.images:
            source, split = self.sources[use], "train" if use in SEEN else use
            columns = {"image_column": self.image_column, "label_column": self.label_column}
            pictures = read_images(source, split, held_out=self.held_out, **columns)
            if self.classes is not None:
                pictures = pictures.chosen(self.classes, source)
            if use == "calibration":
                if len(pictures) < self.nsamples:
                    raise ValueError(
                        f"{source!r} has {len(pictures)} images to calibrate on, and "
                        f"nsamples={self.nsamples} are asked for. Give more, or lower nsamples."
                    )
                drawn = random.Random(self.seed).sample(range(len(pictures)), self.nsamples)
                pictures = pictures.taken(drawn, pictures.part)
            known, classes = self.preparation.known, self.preparation.classes
            pictures = pictures.numbered(known, classes, source)
            pictures.check(source)
            self.images[use] = Prepared(pictures, self.preparation)
        return self.images[use]

    def _loader(self, use: str) -> DataLoader[Any]:
        images, training = self._images(use), use == "train"
        _, world = self._place()
        if training and len(images) < world:
            raise ValueError(
                f"{self.source!r} has {len(images)} training images, for {world} processes"
            )
        return self._shared(images, collate_images, training)
