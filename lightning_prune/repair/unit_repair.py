"""What the weights that read the units that stay do for those that go.

A unit that is removed no longer reaches the Linear that reads it (o_proj of a GQA group, down_proj
of a neuron). That Linear is the place to put right what is missing. Every repair here goes with
every score and every allocation.

Axes: O output features, I input features, S input features that stay, D hidden size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch

from lightning_prune.checks import Configured
from lightning_prune.evidence import CrossGram, Gram, InputEvidence, InputMean
from lightning_prune.repair.gram import check_gram
from lightning_prune.repair.rows import product, solved

__all__ = ["Bias", "Fixed", "LeastSquares", "Repair", "least_squares"]


class Fixed(NamedTuple):
    """A Linear after its repair; the bias is None if it has none."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor | None


class Repair(Configured, ABC):
    """What is done about removed units, Linear by Linear, once all has been decided.

    The Linears that read units are visited in the order in which they run, in one forward pass in
    which every one before has been repaired already.

    Attributes:
        evidence: what is collected at the input of each of these Linears.
        adds_biases: it gives a bias to Linears that have none.
    """

    adds_biases: ClassVar[bool] = False

    def working(self, outputs: int, inputs: int, kept: float) -> float:
        """Bytes that a Linear takes at most while it is repaired, beside weight and evidence.

        Args:
            outputs: its output features.
            inputs: its input features.
            kept: the fraction of them that stays.
        """
        return 8.0 * outputs * inputs

    def operations(self, outputs: int, inputs: int, kept: float) -> float:
        """Multiplications and additions that the repair of a Linear takes."""
        return 2.0 * outputs * inputs

    @property
    @abstractmethod
    def evidence(self) -> InputEvidence:
        """What is collected at the input of each of these Linears."""

    @abstractmethod
    def fix(
        self,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        keep_I: torch.Tensor,
        evidence: Any,
    ) -> Fixed:
        """The new weight and bias; no row depends on another, and processes divide them.

        Args:
            weight_OI: the weight, or some of its rows, fp32.
            bias_O: the bias, if there is one, of these rows, fp32.
            keep_I: True for the input features of units that stay.
            evidence: its result.
        """


class Bias(Repair):
    """Add what the removed units contribute on average to the bias.

    Source: An et al., "FLAP", arXiv 2312.11983, section 3.4. The new bias is
    b + Σ over removed j of W_:j · mean(x_j).

    A Linear without a bias gets one, so the model needs a class of its own when it is saved.
    Costs one forward pass.

    Differs from FLAP's code: the mean is added to a bias that is there (theirs overwrites it), it
    is not rounded to 16 bits, and it is taken behind the repairs of earlier blocks.
    """

    evidence = InputMean()
    adds_biases = True

    def fix(
        self,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        keep_I: torch.Tensor,
        evidence: Any,
    ) -> Fixed:
        """The columns that stay, and the mean of what the others made."""
        lost_O = (weight_OI * ~keep_I) @ evidence
        return Fixed(weight_OI * keep_I, lost_O if bias_O is None else bias_O + lost_O)


class LeastSquares(Repair):
    """Fit the Linear that reads the units that stay to what the dense model does.

    With x the inputs in the pruned model, S what stays of them, and y the output that is wanted,
    the new weights minimise ||y - W' x_S||² + λ ||W' - W_S||² over the calibration tokens:

        W' = (mean(y x_Sᵀ) + λ W_S) (mean(x_S x_Sᵀ) + λ)⁻¹,      λ = ridge · mean diagonal.

    What is wanted lies between two targets:

    - what the Linear made of x before, y = W x. Then mean(y x_Sᵀ) = W K_:S, K the Gram matrix of x.
      This is the repair of "GRAIL", and the closed form of optimal brain surgery.
    - what the dense model's Linear makes of its own input, plus all that is wrong by then in the
      residual stream, so that errors do not add up from block to block.

    `trust` says how far to go from the first to the second. At 1 a fit on few calibration tokens
    learns their errors by heart; at 0 the dense model need not run, which saves a forward pass and
    a product of the inputs for each Linear.

    A Linear that has a bias keeps it as it is. Costs two forward passes, dense and pruned, and two
    products of the inputs of o_proj and down_proj.

    Source: the second target is that of `ResidualFit`, which prunes single weights so.
    Families with a norm behind the Linear (Gemma, OPT-350m) take the dense output alone as the
    second target.

    Args:
        ridge: share of the Gram matrix's mean diagonal that pulls towards the weights as they were.
        trust: how far to follow the dense model, from 0, this layer alone, to 1.

    Raises:
        ValueError: an argument is out of range.
    """

    ridge: float = 0.03
    trust: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("ridge", 0 < self.ridge < math.inf, "it is above 0, usually 0.001 to 0.1")
        self.require("trust", 0 <= self.trust <= 1, "it is in [0, 1]")

    @property
    def evidence(self) -> InputEvidence:
        """Gram matrices, with those of the dense model if it is followed."""
        return CrossGram() if self.trust else Gram()

    def working(self, outputs: int, inputs: int, kept: float) -> float:
        """The target in fp32, and what is solved in float64."""
        weights, square = outputs * inputs, (kept * inputs) ** 2
        return (8 + 8 * bool(self.trust) + 20 * kept) * weights + 16 * square + 16 * inputs

    def operations(self, outputs: int, inputs: int, kept: float) -> float:
        """The target, a Cholesky factor and two triangular solves."""
        left = kept * inputs
        targets = 2 * outputs * inputs**2 * (1 + bool(self.trust))
        return targets + left**3 / 3 + 2 * outputs * left**2

    def fix(
        self,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        keep_I: torch.Tensor,
        evidence: Any,
    ) -> Fixed:
        """The columns that stay, fitted to the wanted output."""
        gram_II = evidence.gram_II if self.trust else evidence
        right_OI = product(weight_OI, gram_II)
        if self.trust:
            dense_OI = product(weight_OI, evidence.cross_II)
            if evidence.error_DI is not None:
                dense_OI += evidence.error_DI
            right_OI = right_OI.lerp(dense_OI, self.trust)
        return Fixed(least_squares(weight_OI, keep_I, gram_II, right_OI, self.ridge), bias_O)


def least_squares(
    weight_OI: torch.Tensor,
    keep_I: torch.Tensor,
    gram_II: torch.Tensor,
    right_OI: torch.Tensor,
    ridge: float,
) -> torch.Tensor:
    """Solve for the columns that stay; see `LeastSquares`. In float64.

    Args:
        weight_OI: W.
        keep_I: True for S.
        gram_II: mean(x xᵀ).
        right_OI: mean(y xᵀ).
        ridge: share of the mean diagonal.

    Returns:
        W' (O, I), zero where `keep_I` is False.

    Raises:
        ValueError: the Gram matrix is not finite.
    """
    check_gram(gram_II)
    kept_S = keep_I.nonzero().flatten()
    gram_SS = gram_II[kept_S[:, None], kept_S].double()
    strength = ridge * gram_SS.diagonal().mean()
    if not strength > 0:  # these inputs are zero throughout: nothing can be learnt
        return weight_OI * keep_I
    right_OS = right_OI[:, kept_S].double() + strength * weight_OI[:, kept_S].double()
    gram_SS.diagonal().add_(strength)
    new_OS = solved(right_OS, torch.linalg.cholesky(gram_SS))
    new_OI = torch.zeros_like(weight_OI)
    new_OI[:, kept_S] = new_OS.to(weight_OI.dtype)
    return new_OI
