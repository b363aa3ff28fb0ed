"""Perplexity of a causal LM, block by block, so that it needs room for one block only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.sweep import HiddenStates, InMemory, evaluating, home_device

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
    anatomy = Anatomy(model)
    with evaluating(model):
        states = HiddenStates(anatomy, batches, InMemory(anatomy, device))
        count = states.predicted()
        with states.from_start():
            for block in anatomy.blocks:
                with states.placement.block(block):
                    states.advance(block)
            with states.placement.outside():
                losses = [
                    states.losses(i, states.entering(i)).double().sum() for i in states.indices
                ]
    if count == 0:
        raise ValueError("no token to predict: the windows are empty, or all padding")
    return float((torch.stack(losses).sum() / count).exp())
