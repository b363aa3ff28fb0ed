"""Perplexity of a causal LM, block by block, so that it needs room for one block only.

Axes: B windows of a batch, S places in a window, N all windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import TaskLoss
from lightning_prune.sweep import HiddenStates, evaluating, home_device, placement_of
from lightning_prune.tokens import IGNORED

__all__ = ["perplexity", "window_losses"]


Batches = Iterable[Mapping[str, torch.Tensor]]


def perplexity(
    model: torch.nn.Module, batches: Batches, device: torch.device | str | None = None
) -> float:
    """The exponential of the mean negative log likelihood of every next token of every window.

    The result does not depend on how the windows are batched or padded; it depends on their
    length, so say it beside the number. In several processes each measures what it is given.

    Args:
        model: a causal LM of a known family.
        batches: dicts with `input_ids` (B, T) and optional `attention_mask` and `labels`.
        device: where blocks run; default: where the model is.

    Raises:
        ValueError: unknown model type, or no token to predict.
    """
    losses, counts = zip(*_by_batch(model, batches, device), strict=True)
    total = torch.stack([loss_BS.sum() for loss_BS in losses]).sum()
    return float((total / sum(counts)).exp())


def window_losses(
    model: torch.nn.Module, batches: Batches, device: torch.device | str | None = None
) -> tuple[list[float], int]:
    """The summed negative log likelihood of each window, and the tokens of all together.

    By which two models are compared; `exp(sum(losses) / tokens)` is the perplexity.

    Args:
        model: a causal LM of a known family.
        batches: as for `perplexity`.
        device: where blocks run; default: where the model is.

    Raises:
        ValueError: as for `perplexity`.
    """
    losses, counts = zip(*_by_batch(model, batches, device), strict=True)
    loss_N = torch.cat([loss_BS.sum(dim=1) for loss_BS in losses])
    return loss_N.tolist(), sum(counts)


@torch.no_grad()
def _by_batch(
    model: torch.nn.Module, batches: Batches, device: torch.device | str | None
) -> Iterator[tuple[torch.Tensor, int]]:
    """The losses of each batch, (B, S) float64, and how many of its tokens are predicted."""
    device = home_device(model) if device is None else torch.device(device)
    anatomy = Anatomy(model)
    with evaluating(model):
        states = HiddenStates(anatomy, batches, placement_of(anatomy, device))
        if states.predicted() == 0:
            raise ValueError("no token to predict: the windows are empty, or all padding")
        with states.from_end():
            for i in states.indices:
                asked = states.targets(i, TaskLoss()) != IGNORED
                loss = states.losses(i, states.entering(i)).double()
                yield loss.reshape(len(loss), -1), int(asked.sum())
