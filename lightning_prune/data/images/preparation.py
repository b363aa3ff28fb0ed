"""From images to pixels, as one model takes them.

Axes: B images of a batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_prune.data.images.pictures import Pictures, pillow
from lightning_prune.tokens import IGNORED

__all__ = ["Prepared", "Preparation", "collate_images"]

GREY = ("1", "L", "LA")
"""Pillow's names for images without colours."""
DEEP = ("I;16", "I;16L", "I;16B")
"""Those of grey images of 16 bits, of which `convert` would cut off all that is above 255."""
UNKNOWN_RANGE = ("I", "F")
"""Those of grey images whose numbers may be anything."""
MODES = {1: "L", 3: "RGB"}
KEPT = 2**30  # bytes of pixels that are kept, so that small images are prepared once

Item = tuple[torch.Tensor, int]


@dataclass(frozen=True)
class Preparation:
    """What a model asks of its images.

    Attributes:
        processor: transformers' image processor: size, scale and colours.
        channels: that the model reads: 1, grey, or 3, red, green and blue.
        known: the model's classes: name → number.
        classes: how many its head tells apart.
    """

    processor: Any
    channels: int
    known: Mapping[str, int]
    classes: int

    def pixels(self, image: Any) -> torch.Tensor:
        """An image of Pillow as pixel values, (C, H, W).

        Raises:
            ValueError: it has colours, and the model reads grey images; the model reads neither; or
                nothing says which of its numbers is white.
        """
        if self.channels not in MODES:
            raise ValueError(
                f"the model reads {self.channels} channels, and images have 1 (grey) or 3 (red, "
                "green, blue)"
            )
        if image.mode in UNKNOWN_RANGE:
            raise ValueError(
                f"an image has numbers of 32 bits ({image.mode}), and nothing says which of them "
                "is white: save it with 8 or 16 bits"
            )
        if image.mode in DEEP:
            image = pillow().fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if self.channels == 1 and image.mode not in GREY:
            raise ValueError(
                f"an image has colours ({image.mode}), and the model reads 1 channel: give grey "
                "images, or a model of 3 channels"
            )
        plain = image.convert(MODES[self.channels])
        pixels: torch.Tensor = self.processor(plain, return_tensors="pt")["pixel_values"][0]
        return pixels


class Prepared(Dataset[Item]):
    """Images of a split, with the model's numbers of their classes.

    Item None is an image that does not count: it fills up the batches of a process that has fewer
    images than the others.

    Args:
        pictures: the images.
        preparation: what the model asks of them.
    """

    def __init__(self, pictures: Pictures, preparation: Preparation) -> None:
        self.pictures, self.preparation = pictures, preparation
        self._kept: dict[int, torch.Tensor] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int | None) -> Item:
        label = IGNORED if index is None else self.pictures.labels[index]
        return self._pixels(index or 0), int(label)

    def _pixels(self, index: int) -> torch.Tensor:
        if index not in self._kept:
            pixels_CHW = self.preparation.pixels(self.pictures.image(index))
            self._bytes += pixels_CHW.nbytes
            if self._bytes > KEPT:
                return pixels_CHW
            self._kept[index] = pixels_CHW
        return self._kept[index]


def collate_images(items: Sequence[Item]) -> dict[str, torch.Tensor]:
    """A batch: `pixel_values` (B, C, H, W) and `labels` (B,).

    Raises:
        ValueError: the images differ in size, as where a processor leaves their size alone.
    """
    sizes = sorted({tuple(pixels.shape) for pixels, _ in items})
    if len(sizes) > 1:
        raise ValueError(
            f"images of a batch are of {len(sizes)} sizes, {sizes[0]} and {sizes[1]} among them: "
            "the model's image processor does not make them alike (do_resize, do_center_crop)"
        )
    pixels_BCHW = torch.stack([pixels for pixels, _ in items])
    return {"pixel_values": pixels_BCHW, "labels": torch.tensor([label for _, label in items])}
