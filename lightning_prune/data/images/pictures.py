"""Images of one split with their classes, each read when it is asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

__all__ = ["DAMAGED", "ImageFile", "Pictures", "pillow"]

NAMED = 3
"""So many files are named that cannot be read."""
DAMAGED = (OSError, SyntaxError, ValueError)
"""What Pillow raises of files that it cannot read, by their kind."""
Read = Callable[[], Any]
"""Gives an image of Pillow, or an array of bytes (height, width) or (height, width, 3)."""


@dataclass(frozen=True)
class Pictures:
    """Images of one split.

    Attributes:
        reads: reads each image.
        labels: the class of each, a place in `classes`.
        classes: what the classes are called.
        part: what of the source this is, where the source has no such split.
    """

    reads: Sequence[Read]
    labels: Sequence[int]
    classes: tuple[str, ...]
    part: str = ""

    def __len__(self) -> int:
        return len(self.reads)

    def image(self, index: int) -> Any:
        """One image, of Pillow.

        Raises:
            ValueError: it cannot be read.
        """
        read = self.reads[index]()
        return read if hasattr(read, "convert") else pillow().fromarray(read)

    def check(self, source: str) -> None:
        """Refuse files that are no images, by their headers; of PNG files by their checksums.

        Raises:
            ValueError: there are such files; they are counted, and the first are named.
        """
        files = [read for read in self.reads if isinstance(read, ImageFile)]
        if strange := [str(file.path) for file in files if not file.is_image()]:
            more = ", …" if len(strange) > NAMED else ""
            raise ValueError(
                f"{len(strange):,} of {len(files):,} files of {source!r} cannot be read as images "
                f"({', '.join(strange[:NAMED])}{more}). Take them away, or put whole ones there."
            )

    def taken(self, indices: Sequence[int], part: str = "") -> Pictures:
        """Those at these places, in this order."""
        reads = [self.reads[i] for i in indices]
        return replace(self, reads=reads, labels=[self.labels[i] for i in indices], part=part)

    def chosen(self, classes: Sequence[str], source: str) -> Pictures:
        """Those of some classes.

        Raises:
            ValueError: there is no class of this name, or one is asked for twice.
        """
        if twice := [name for name in classes if list(classes).count(name) > 1]:
            raise ValueError(f"classes names {twice[0]!r} more than once")
        if strange := [name for name in classes if name not in self.classes]:
            known = ", ".join(self.classes)
            raise ValueError(f"{source!r} has no class {strange[0]!r}; its classes are {known}")
        number = {self.classes.index(name): i for i, name in enumerate(classes)}
        mine = [i for i, label in enumerate(self.labels) if label in number]
        taken = self.taken(mine, self.part)
        labels = [number[label] for label in taken.labels]
        return replace(taken, labels=labels, classes=tuple(classes))

    def shared(self, held_out: float) -> tuple[Pictures, Pictures]:
        """For training, and held out: drawn at random, always the same."""
        order = random.Random(0).sample(range(len(self)), len(self))
        count = round(held_out * len(self))
        kept, out = sorted(order[count:]), sorted(order[:count])
        said = f"{held_out:.0%} of it"
        return self.taken(kept, f"all but {said}"), self.taken(out, said)

    def numbered(self, known: Mapping[str, int], classes: int, source: str) -> Pictures:
        """With the model's numbers for the classes.

        By the names of the classes, where the model knows all of them; else by their order, where
        there are as many as the model tells apart.

        Args:
            known: the model's classes: name → number.
            classes: how many the model's head tells apart.
            source: where the images come from.

        Raises:
            ValueError: there are classes that the head does not have, or only one class.
        """
        if len(self.classes) < 2:
            raise ValueError(
                f"{source!r} has images of one class ({', '.join(self.classes)}), and there is "
                "nothing to tell apart. Give a folder that has a folder of images for each class."
            )
        if all(name in known for name in self.classes):
            numbers = [known[name] for name in self.classes]
        elif len(self.classes) == classes:
            numbers = list(range(classes))
        else:
            strange = [name for name in self.classes if name not in known]
            raise ValueError(
                f"{source!r} has {len(self.classes)} classes, {', '.join(map(repr, strange[:3]))} "
                f"among them, and the model's head tells {classes} others apart: "
                f"{', '.join(map(repr, list(known)[:3]))}, … Choose those that it knows with "
                "classes, or name the folders as the model's config names its labels."
            )
        if max(numbers) >= classes:
            raise ValueError(
                f"{source!r} has the label {max(numbers)}, and the model's head tells {classes} "
                "classes apart"
            )
        return replace(self, labels=[numbers[label] for label in self.labels])

    @property
    def targets(self) -> torch.Tensor:
        """The classes, (N,)."""
        return torch.tensor(self.labels)


def pillow() -> Any:
    """Pillow's module for images.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "images are read with Pillow: pip install 'lightning-prune[vision]'"
        ) from error
    return Image


@dataclass(frozen=True)
class ImageFile:
    """A file that is read when it is called."""

    path: Path

    def __call__(self) -> Any:
        """The image, read whole.

        Raises:
            ValueError: the file holds none.
        """
        try:
            with pillow().open(self.path) as image:
                image.load()
                return image
        except DAMAGED as error:
            raise ValueError(
                f"{self.path} cannot be read as an image ({error}). Take it away, or put a whole "
                "one there."
            ) from error

    def is_image(self) -> bool:
        """Whether it is one, by its header, and by its checksums if its kind has any."""
        try:
            with pillow().open(self.path) as image:
                image.verify()
        except DAMAGED:
            return False
        return True
