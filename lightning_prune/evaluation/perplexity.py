"""Perplexity of a causal LM, block by block, so that it needs room for one block only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.sweep import HiddenStates, evaluating, home_device, on_device

__all__ = ["perplexity"]


@torch.no_grad()
def perplexity(
    model: torch.nn.Module,
    batches: Iterable[Mapping[str, torch.Tensor]],
    device: torch.device | str | None = None,
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
    device = home_device(model) if device is None else torch.device(device)
    with evaluating(model):
        states = HiddenStates(Anatomy(model), batches, device)
        for block in states.anatomy.blocks:
            with on_device([block.module], device):
                states.advance(block)
        with states.outside_on_device():
            losses = [states.losses(i, h).double().sum() for i, h in enumerate(states.hidden)]
        count = states.predicted()
    if count == 0:
        raise ValueError("no token to predict: the windows are empty, or all padding")
    return float((torch.stack(losses).sum() / count).exp())
