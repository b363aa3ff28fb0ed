"""Taylor terms made from gradients."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.evidence import GradientEvidence, SquaredGradientEvidence


def test_the_gradient_is_completed_before_it_is_multiplied() -> None:
    """|w·g| of a sum, not the sum of |w·g|: opposite gradients cancel."""
    one = GradientEvidence(torch.tensor([[2.0, -3.0]]))
    one.update(torch.tensor([[1.0, 1.0]]))
    one.update(torch.tensor([[-1.0, 2.0]]))
    one.reduce(tokens=1)
    assert one.first_OI.tolist() == [[0.0, -9.0]]
    assert one.absolute_OI.tolist() == [[0.0, 9.0]]


def test_the_gradient_is_that_of_the_mean_over_tokens() -> None:
    """Sums of losses come in, and are divided once, by all tokens."""
    one = GradientEvidence(torch.tensor([[2.0]]))
    one.update(torch.tensor([[3.0]]))
    one.update(torch.tensor([[5.0]]))
    one.reduce(tokens=4)
    assert one.first_OI.tolist() == [[4.0]]


def test_squares_are_averaged_over_sequences() -> None:
    """Mean of g², where opposite gradients do not cancel."""
    one = SquaredGradientEvidence(torch.tensor([[2.0, -3.0]]))
    one.update_square(torch.tensor([[1.0, 1.0]]))
    one.update_square(torch.tensor([[-1.0, 2.0]]))
    assert one.square_OI.tolist() == [[1.0, 2.5]]


def test_half_precision_weights_give_single_precision_terms() -> None:
    """Sums and products do not round to the weight's type."""
    weight_OI = torch.tensor([[1.0, 0.5]], dtype=torch.bfloat16)
    one = GradientEvidence(weight_OI)
    one.update(torch.tensor([[1.0, 1.0]]))
    one.update(torch.tensor([[2.0**-20, 0.0]]))
    assert one.first_OI.dtype == torch.float32
    assert float(one.first_OI[0, 0]) == 1 + 2.0**-20


def test_squares_must_be_asked_for() -> None:
    """They cost the memory of a second weight."""
    with pytest.raises(AssertionError, match="made without squares"):
        GradientEvidence(torch.ones(1, 1)).update_square(torch.ones(1, 1))
