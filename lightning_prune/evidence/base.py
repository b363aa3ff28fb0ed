"""What a method, an allocation or a repair may ask to be collected over the calibration set.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Any, ClassVar, Literal

import torch
from typing_extensions import Self

from lightning_prune import distributed
from lightning_prune.checks import Configured

__all__ = ["Evidence", "InputEvidence", "PairedEvidence", "Propagate", "Sweep", "moved"]

Sweep = Literal["forward", "paired", "backward", "influence", "removal", "trial"]
Propagate = Literal["block", "layer", "none"]
"""Which of the changes made before a Linear its evidence sees; see `forward_sweep`."""


class Evidence(Configured, ABC):
    """A statistic of the calibration set, by block.

    An object is a request, with its settings: `evidence = InputNorm()`. The sweep that it names
    makes accumulators of it, which have the same settings: each is fed batch by batch, adds up over
    processes in `reduce`, and is read once by `result`. Sums are float64, so that neither the order
    of the batches nor their distribution over processes shows in them.

    What a method is handed for a block is a dict of results; the keys are said by each kind.

    Attributes:
        sweep: which sweep collects it:
            "forward": `InputEvidence`, at the inputs of Linears, by the name of the input;
            "paired": `PairedEvidence`, the same with the dense model running in step;
            "backward": `WeightEvidence`, gradients of weights, by the weight's name;
            "influence": `BlockEvidence`, what a block changes in the hidden states, by "block";
            "removal": `Removal`, what the loss rises by without a block, by "block";
            "trial": `Trial`, what a block's output loses with one Linear changed, by Linear.
        rows_per_feature: how many tokens for each input feature it takes to be relied on; 0: any
            number.
    """

    sweep: ClassVar[Sweep]
    rows_per_feature: ClassVar[int] = 0

    @property
    def component(self) -> str:
        """What scores made of it are called where a method has several kinds."""
        return type(self).__name__

    @property
    def sums(self) -> list[torch.Tensor]:
        """Of an accumulator, the tensors that are added up over processes."""
        return []

    def reduce(self) -> None:
        """Add up over all processes, in place."""
        for tensor in self.sums:
            distributed.sum_(tensor)

    def spanning(self, blocks: int) -> Self:
        """The same of so many consecutive blocks at a time, where it is of blocks."""
        return self

    def result(self) -> Any:
        """The statistic; asked for once, when all batches of all processes are in it."""
        raise NotImplementedError(f"{type(self).__name__} is measured by its sweep itself")


class InputEvidence(Evidence):
    """A statistic of the inputs of one Linear, or of several that share their input.

    Attributes:
        width: number of input features, of an accumulator.
        device: where its sums are kept.
    """

    sweep: ClassVar[Sweep] = "forward"

    width: int = field(init=False)
    device: torch.device = field(init=False)

    def begin(self, width: int, device: torch.device) -> Self:
        """An empty accumulator with these settings."""
        accumulator = copy.copy(self)
        accumulator.width, accumulator.device = width, device
        accumulator.start()
        return accumulator

    @abstractmethod
    def start(self) -> None:
        """Make the sums, of zeros, for `width` features on `device`."""

    def operations(self, width: int, tokens: int, adds: int = 0) -> float:
        """Multiplications and additions that so many tokens of an input take.

        Args:
            width: input features.
            tokens: how many.
            adds: features of the residual stream that the Linear behind it adds to.
        """
        return 2.0 * width * tokens

    @abstractmethod
    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch. `keep_BT` is False at padding, which does not count; None: all count."""


class PairedEvidence(InputEvidence):
    """A statistic of the inputs of a Linear together with what the dense model has in their place.

    Attributes:
        adds: of an accumulator, features of the residual stream that the Linear adds to; 0 if it
            adds nothing.
    """

    sweep: ClassVar[Sweep] = "paired"

    adds: int = field(init=False)

    def begin(self, width: int, device: torch.device, adds: int = 0) -> Self:
        """An empty accumulator for a Linear that adds to so many features of the stream."""
        accumulator = super().begin(width, device)
        accumulator.adds = adds
        return accumulator

    @abstractmethod
    def update_pair(
        self,
        input_BTI: torch.Tensor,
        dense_BTI: torch.Tensor,
        error_BTD: torch.Tensor | None,
        keep_BT: torch.Tensor | None,
    ) -> None:
        """Add one batch of both models.

        Args:
            input_BTI: of the pruned model.
            dense_BTI: of the dense model.
            error_BTD: the dense residual stream less the pruned one, in front of what the Linear
                adds to it; None if it adds nothing.
            keep_BT: as of `update`.
        """


def moved(result: Any, device: torch.device | str) -> Any:
    """A result, a tensor or a named tuple of tensors, on a device; anything else as it is."""
    if isinstance(result, torch.Tensor):
        return result.to(device)
    if isinstance(result, tuple):
        return type(result)(*(moved(part, device) for part in result))
    return result
