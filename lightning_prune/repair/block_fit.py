"""BlockFit: train what is left of some blocks until they do again what the dense blocks did.

All remaining weights of a span of consecutive blocks are trained together by Adam, so that
attention and MLP can make up for each other, which no repair of single matrices can. Their target
is the hidden states that the dense model has behind the span; what goes in is what the pruned model
has in front of it. The error is relative to each token's own length, since a few tokens of a
language model are hundreds of times as long as the others. Or all blocks are one span, and their
target is what the dense model says next.

Source: reconstruction by gradient, block by block, is that of Guo et al., "EBFT: Effective and
Block-Wise Fine-Tuning for Sparse LLMs", arXiv 2402.12419. Differs from it: what is asked for are
the dense model's own hidden states (target="block" is the dense block's output on the same input),
errors are relative per token, steps are relative to each tensor's size, and windows are held out,
so that a span never ends worse than it began. Towards the logits it is distillation, Hinton et al.,
"Distilling the Knowledge in a Neural Network", arXiv 1503.02531, at temperature 1, on no other text
than pruning has.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import torch

from lightning_prune.checks import Configured

__all__ = ["BlockFit", "relative_error"]

_Block = TypeVar("_Block")


class BlockFit(Configured):
    """Train what is left of each span of blocks to do what the dense model does.

    ```python
    Wanda(sparsity=0.5, block_fit=BlockFit())
    CFSP(ratio=0.25, block_fit=BlockFit(span=2))
    ```

    It goes with every method that removes weights or units, after its own corrections and repairs.
    Masks, and the units that stay, are not changed by it.

    Args:
        steps: of Adam, for each span; every step sees one calibration batch of each process.
        rate: length of the longest steps, relative to the root mean square of each tensor's
            entries; it rises over the first eighth of the steps, and falls to zero along a cosine.
            None: 0.01; towards the logits, where all blocks change at once, 0.001.
        span: consecutive blocks that are trained together.
        target: "stream": the hidden states of the dense model; "block": what the dense blocks make
            of the pruned model's hidden states; "logits": what the dense model says next, and all
            blocks are trained together: it does far more, and takes six times the weights of the
            whole model in fp32.
        held_out: share of the calibration batches that nothing is learnt from. They judge the
            weights after each quarter of the steps, and the best ones stay.

    Raises:
        ValueError: an argument is out of range.
    """

    steps: int = 64
    rate: float | None = None
    span: int = 1
    target: Literal["stream", "block", "logits"] = "stream"
    held_out: float = 0.125

    def __post_init__(self) -> None:
        for name in ("steps", "span"):
            value = getattr(self, name)
            self.require(name, value >= 1, "it is 1 or more")
        positive = self.rate is None or self.rate > 0
        self.require("rate", positive, "it is above 0; 0.01 is a hundredth of a weight")
        self.require("held_out", 0 <= self.held_out < 1, "it is in [0, 1); 0 judges by all")
        alone = self.span == 1 or not self.to_the_end
        self.require("span", alone, 'leave it out: target="logits" trains all blocks together')

    @property
    def to_the_end(self) -> bool:
        """Whether it is the whole model's output that counts."""
        return self.target == "logits"

    @property
    def step_length(self) -> float:
        """Of the longest steps, relative to what weights are like."""
        return self.rate or (0.001 if self.to_the_end else 0.01)

    def spans(self, blocks: Sequence[_Block]) -> list[Sequence[_Block]]:
        """What is trained together, from blocks that follow each other."""
        size = len(blocks) if self.to_the_end else self.span
        return [blocks[start : start + size] for start in range(0, len(blocks), max(size, 1))]


def relative_error(
    output_BTD: torch.Tensor, target_BTD: torch.Tensor, keep_BT: torch.Tensor | None
) -> torch.Tensor:
    """Squared error over the target's squared length, token by token, summed over those that count.

    Args:
        output_BTD: of the span.
        target_BTD: what was wanted.
        keep_BT: False where a token does not count; None: all count.
    """
    target_BTD = target_BTD.float()
    wrong_BT = (output_BTD.float() - target_BTD).square().sum(dim=-1)
    error_BT = wrong_BT / target_BTD.square().sum(dim=-1).clamp(min=1e-12)
    return error_BT.sum() if keep_BT is None else error_BT[keep_BT].sum()
