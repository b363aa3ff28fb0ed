"""Gradients of weights from the inputs of their Linears and the gradients of the outputs.

Autograd carries the gradients of activations only; the weights need not require any.

Axes: B sequences, T tokens, O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from lightning_prune.anatomy import Block
from lightning_prune.evidence import WeightEvidence

__all__ = ["listening"]


@contextmanager
def listening(
    blocks: Iterable[Block],
    evidence: Mapping[str, WeightEvidence],
    weights: Sequence[float] | None,
) -> Iterator[None]:
    """Feed the evidence, by weight name, whenever autograd comes by.

    Args:
        blocks: with the sites to listen at; those without evidence are left alone.
        evidence: by weight name.
        weights: what makes each sequence's gradient that of its own mean, if that is wanted too.
    """

    def hook(
        accumulator: WeightEvidence,
    ) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def listen(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if output.requires_grad:
                input_BTI = inputs[0].detach()
                output.register_hook(
                    lambda gradient: _add(accumulator, gradient, input_BTI, weights)
                )

        return listen

    with ExitStack() as hooks:
        for block in blocks:
            for site in block.sites:
                if site.weight_name in evidence:
                    handle = site.module.register_forward_hook(hook(evidence[site.weight_name]))
                    hooks.callback(handle.remove)
        yield


@torch.no_grad()
def _add(
    accumulator: WeightEvidence,
    gradient_BTO: torch.Tensor,
    input_BTI: torch.Tensor,
    weights: Sequence[float] | None,
) -> None:
    if weights is None:
        accumulator.update(_product(gradient_BTO.flatten(0, -2), input_BTI.flatten(0, -2)))
        return
    for weight, gradient_TO, input_TI in zip(
        weights,
        gradient_BTO.reshape(len(weights), -1, gradient_BTO.shape[-1]),
        input_BTI.reshape(len(weights), -1, input_BTI.shape[-1]),
        strict=True,
    ):
        sequence_OI = _product(gradient_TO, input_TI)
        accumulator.update(sequence_OI)
        if weight > 0:
            accumulator.update_own(sequence_OI * weight)


def _product(gradient_TO: torch.Tensor, input_TI: torch.Tensor) -> torch.Tensor:
    """The sum over tokens in fp32, (O, I). Products of half precision are exact in it."""
    if gradient_TO.is_cuda and gradient_TO.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(gradient_TO.mT, input_TI, out_dtype=torch.float32)
    return gradient_TO.float().mT @ input_TI.float()
