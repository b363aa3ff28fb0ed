"""Training a masked model: what is zero stays zero.

Axes: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_prune.plan import Plan

__all__ = ["KeepMasks", "check_zeros"]


class KeepMasks:
    """Sets the weights that a plan masks to zero again after every step of the optimizers.

    Gradients, momentum and weight decay move them; nothing that looks at the model between two
    steps sees it. The masks lie beside the weights, a byte for each; of a sharded weight, each
    process holds its own part.

    Args:
        model: the plain model; frozen weights, and those that an adapter stands in front of, do
            not move and are left alone.
        plan: its masks are kept.
        optimizers: whatever trains the model.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, optimizers: Iterable[torch.optim.Optimizer]
    ) -> None:
        weights = dict(model.named_parameters(remove_duplicate=False))
        self._gone = [
            (weight, _placed(~plan.mask(name), weight))
            for name in plan.mask_names
            if (weight := weights.get(name)) is not None and weight.requires_grad
        ]
        self._handles = [
            optimizer.register_step_post_hook(lambda *_: self.restore())
            for optimizer in optimizers
            if self._gone
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Set them to zero."""
        for weight, gone in self._gone:
            local = weight.to_local() if isinstance(weight, DTensor) else weight
            local.masked_fill_(gone, 0)

    def remove(self) -> None:
        """Let the weights go."""
        for handle in self._handles:
            handle.remove()


def check_zeros(model: nn.Module, plan: Plan, when: str) -> int:
    """Count the zeros that a plan's masks ask for, and refuse a model in which one is missing.

    Args:
        model: a plain model.
        plan: its masks count.
        when: what has been done to the model, for the message.

    Returns:
        How many weights the masks set to zero; all of them are.

    Raises:
        ValueError: a weight that should be zero is not.
    """
    weights, zeros, revived = dict(model.named_parameters(remove_duplicate=False)), 0, []
    for name in plan.mask_names:
        gone_OI = ~plan.mask(name)
        zeros += int(gone_OI.sum())
        count = int((weights[name].detach().cpu() != 0).logical_and_(gone_OI).sum())
        revived += [f"{count} in {name}"] if count else []
    if revived:
        raise ValueError(
            f"{when}, weights that the plan sets to zero are not zero: {', '.join(revived[:3])}"
            f"{f' and {len(revived) - 3} more weights' if len(revived) > 3 else ''}. Was the plan "
            "made for another model, or the adapter attached without it?"
        )
    return zeros


def _placed(mask_OI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """The part of a mask that belongs to this process's part of the weight, beside it."""
    mask_OI = mask_OI.to(weight_OI.device)
    if not isinstance(weight_OI, DTensor):
        return mask_OI
    # Every process has the whole mask: nothing is sent.
    sharded = distribute_tensor(
        mask_OI, weight_OI.device_mesh, weight_OI.placements, src_data_rank=None
    )
    return sharded.to_local()
