"""Token losses and perplexity.

Axes: B windows of a batch, T tokens of a window, S = T - 1 predictions of a window, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torchmetrics import Metric

from lightning_prune.tokens import IGNORED

__all__ = ["Perplexity", "next_token_nll"]


def next_token_nll(
    logits_BTV: torch.Tensor, labels_BT: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log likelihood of every next token, in fp32.

    Args:
        logits_BTV: the model's output; position t predicts the token at t + 1.
        labels_BT: the tokens, or `IGNORED`.

    Returns:
        The losses (B, S), 0 where ignored, and a bool tensor (B, S): True where a token counts.
    """
    target_BS = labels_BT[:, 1:]
    logits = logits_BTV[:, :-1].flatten(0, 1).float()
    nll = F.cross_entropy(logits, target_BS.flatten(), reduction="none", ignore_index=IGNORED)
    return nll.view_as(target_BS), target_BS != IGNORED


class Perplexity(Metric):
    """exp of the mean negative log likelihood of all tokens, over all batches and processes.

    Differs from `torchmetrics.text.Perplexity`, which takes a softmax and then its logarithm in the
    precision of the logits: one token whose probability rounds to 0 makes that sum infinite. Here
    the logarithm is taken by log-softmax, and the sum is kept in float64, so that it does not
    depend on how tokens are batched.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    nll: torch.Tensor
    count: torch.Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("nll", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _apply(self, *args: Any, **kwargs: Any) -> Perplexity:
        """Move, but never lower the precision: `bf16-true` casts every module of a Trainer."""
        super()._apply(*args, **kwargs)
        self.nll = self.nll.double()
        self._defaults["nll"] = torch.zeros_like(self.nll)
        return self

    def update(self, logits_BTV: torch.Tensor, labels_BT: torch.Tensor) -> None:
        """Add the next-token losses of a batch; see `next_token_nll` for the arguments."""
        nll_BS, counted_BS = next_token_nll(logits_BTV, labels_BT)
        self.nll += nll_BS.sum(dtype=torch.float64)
        self.count += counted_BS.sum()

    def compute(self) -> torch.Tensor:
        """The perplexity, a float64 scalar."""
        return (self.nll / self.count).exp()
