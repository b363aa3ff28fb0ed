"""How often an image classifier is right.

Axes: N images, C classes that the head tells apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.sweep import HiddenStates, evaluating, home_device, placement_of
from lightning_prune.tokens import IGNORED

__all__ = ["Classified", "classify", "hits"]

TOP = 5


@dataclass(frozen=True)
class Classified:
    """What a classifier says of images.

    Attributes:
        said_N: the class that comes first.
        label_N: the class that it is.
        top_N: whether that is among the first five; None: the head has no more than five.
        loss_N: the cross entropy.
    """

    said_N: torch.Tensor
    label_N: torch.Tensor
    top_N: torch.Tensor | None
    loss_N: torch.Tensor

    @property
    def accuracy(self) -> float:
        """The share of images whose class comes first."""
        return float((self.said_N == self.label_N).double().mean())

    @property
    def top5(self) -> float | None:
        """The share of images whose class is among the first five."""
        return None if self.top_N is None else float(self.top_N.double().mean())


def hits(logits_NC: torch.Tensor, label_N: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which images' classes come first ("accuracy"), and among the first five ("top5"); bool."""
    first = logits_NC.topk(min(TOP, logits_NC.shape[1]), dim=-1).indices == label_N[:, None]
    return {"accuracy": first[:, 0], "top5": first.any(dim=-1)}


@torch.no_grad()
def classify(
    model: nn.Module,
    batches: Iterable[Mapping[str, torch.Tensor]],
    device: torch.device | str | None = None,
) -> Classified:
    """Run a classifier over images, block by block.

    Args:
        model: an image classifier of a known family.
        batches: dicts with `pixel_values` (B, channels, height, width) and `labels` (B,); an image
            with the label -100 does not count.
        device: where blocks run; default: where the model is.

    Raises:
        ValueError: unknown model type, or no image.
    """
    device = home_device(model) if device is None else torch.device(device)
    anatomy = Anatomy(model)
    found: list[tuple[torch.Tensor, ...]] = []
    with evaluating(model):
        states = HiddenStates(anatomy, batches, placement_of(anatomy, device))
        if states.predicted() == 0:
            raise ValueError("no image to classify: there are none, or none has a label")
        with states.from_end():
            for i in states.indices:
                label_N = states.targets(i).cpu()
                asked_N = label_N != IGNORED
                logits_NC = states.logits(i, states.entering(i)).float().cpu()[asked_N]
                label_N = label_N[asked_N]
                loss_N = nn.functional.cross_entropy(logits_NC, label_N, reduction="none")
                top_N = hits(logits_NC, label_N)["top5"]
                found.append((logits_NC.argmax(dim=-1), label_N, top_N, loss_N))
    said_N, label_N, top_N, loss_N = (torch.cat(parts) for parts in zip(*found, strict=True))
    few = anatomy.head.sites[0].module.out_features <= TOP
    return Classified(said_N, label_N, None if few else top_N, loss_N)
