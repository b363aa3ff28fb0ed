"""Images on which the stages of a run differ, as pictures for a page.

Axes: C channels, H and W pixels.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

import torch

from lightning_prune.report.report import Differing, Report
from lightning_prune.tokens import IGNORED

__all__ = ["MOST", "differing", "picture_of", "some_that_differ", "with_differing"]

MOST = 24
"""Images that are shown."""
LARGEST = 112
"""Pixels of a picture's longer side, about."""


def some_that_differ(
    said: Mapping[str, torch.Tensor], label_N: torch.Tensor, most: int = MOST
) -> list[int]:
    """Images of which some stage says something else than the first one, by their numbers.

    First those that the first stage has right, from all over the images.

    Args:
        said: by stage, the class that is named of each image (N,).
        label_N: the class that it is.
        most: how many at most.
    """
    first_N, *others = said.values()
    differs_N = torch.zeros_like(first_N, dtype=torch.bool)
    for other_N in others:
        differs_N |= other_N != first_N
    lost = (differs_N & (first_N == label_N)).nonzero().flatten().tolist()
    rest = (differs_N & (first_N != label_N)).nonzero().flatten().tolist()
    return _spread(lost, most) + _spread(rest, most - len(lost))


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[i * len(numbers) // most] for i in range(max(most, 0))]


def with_differing(
    report: Report,
    said: Mapping[str, torch.Tensor],
    label_N: torch.Tensor,
    batches: Iterable[Mapping[str, torch.Tensor]],
    names: Mapping[int, str],
) -> Report:
    """The report, with images on which the stages differ.

    Args:
        report: of a run.
        said: by stage, the class that is named of each image (N,).
        label_N: the class that it is.
        batches: the images, as `pixel_values`, and their `labels`.
        names: of the classes.
    """
    wanted = {number: place for place, number in enumerate(some_that_differ(said, label_N))}
    found: dict[int, Differing] = {}
    number = 0
    for batch in batches:
        for pixels_CHW, label in zip(batch["pixel_values"], batch["labels"].tolist(), strict=True):
            if label == IGNORED:
                continue
            if number in wanted and pixels_CHW.shape[0] in (1, 3):
                by_stage = {
                    n: str(names.get(int(c[number]), int(c[number]))) for n, c in said.items()
                }
                name = str(names.get(label, label))
                found[wanted[number]] = Differing(picture_of(pixels_CHW), name, by_stage)
            number += 1
    first_N, *others = said.values()
    count = int(
        sum((other_N != first_N for other_N in others), torch.zeros_like(first_N)).ne(0).sum()
    )
    settings = report.settings | {"differing": count}
    return replace(report, differing=[found[i] for i in sorted(found)], settings=settings)


def picture_of(pixels_CHW: torch.Tensor) -> str:
    """An image of one or three channels as a PNG, in a data URI; from its darkest to its brightest.

    Each channel for itself, as image processors scale channels each for itself.
    """
    pixels_CHW = pixels_CHW.detach().cpu().float()
    step = max(1, -(-max(pixels_CHW.shape[1:]) // LARGEST))
    pixels_CHW = pixels_CHW[:, ::step, ::step]
    low_C11 = pixels_CHW.amin(dim=(1, 2), keepdim=True)
    span_C11 = (pixels_CHW.amax(dim=(1, 2), keepdim=True) - low_C11).clamp(min=1e-6)
    bytes_HWC = (255 * (pixels_CHW - low_C11) / span_C11).round().byte().permute(1, 2, 0)
    return "data:image/png;base64," + base64.b64encode(_png(bytes_HWC)).decode()


def _png(bytes_HWC: torch.Tensor) -> bytes:
    """A PNG of 8 bits a channel; each row begins with 0, which says that it is not filtered."""
    height, width, channels = bytes_HWC.shape
    rows = b"".join(b"\0" + row.numpy().tobytes() for row in bytes_HWC.contiguous())
    colour = {1: 0, 3: 2}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def differing(report: Report) -> str:
    """A grid of images, each with its class and what the stages say."""
    if not report.differing:
        return ""
    cards = "".join(map(_card, report.differing))
    count = report.settings.get("differing")
    shown = len(report.differing)
    words = f"{shown} of the {count:,} images" if count and count > shown else "The images"
    note = f"{words} on which a later stage names another class than the dense model does."
    return f'<div class="images">{cards}</div><p class="note">{escape(note)}</p>'


def _card(one: Differing) -> str:
    lines = "".join(
        f"<div{'' if said == one.label else ' class=wrong'}>{escape(stage)}: {escape(said)}</div>"
        for stage, said in one.said.items()
    )
    alt = escape(f"an image of the class {one.label}", quote=True)
    picture = escape(one.picture, quote=True)
    return (
        f'<div class="image"><img src="{picture}" alt="{alt}">'
        f'<div class="name">{escape(one.label)}</div>{lines}</div>'
    )
