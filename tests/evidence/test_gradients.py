"""Taylor terms made from gradients."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.evidence import Gradients, TaskLoss


def test_the_gradient_is_completed_before_it_is_multiplied() -> None:
    """|w·g| of a sum, not the sum of |w·g|: opposite gradients cancel."""
    one = Gradients().begin(torch.tensor([[2.0, -3.0]]))
    one.update(torch.tensor([[1.0, 1.0]]))
    one.update(torch.tensor([[-1.0, 2.0]]))
    one.complete(1)
    assert one.first_OI.tolist() == [[0.0, -9.0]]
    assert one.absolute_OI.tolist() == [[0.0, 9.0]]


def test_the_gradient_is_that_of_the_mean_over_tokens() -> None:
    """Sums of losses come in, and are divided once, by all tokens."""
    one = Gradients().begin(torch.tensor([[2.0]]))
    one.update(torch.tensor([[3.0]]))
    one.update(torch.tensor([[5.0]]))
    one.complete(4)
    assert one.first_OI.tolist() == [[4.0]]


def test_squares_are_averaged_over_sequences() -> None:
    """Mean of g², where opposite gradients do not cancel."""
    one = Gradients(squares=True).begin(torch.tensor([[2.0, -3.0]]))
    one.update_own(torch.tensor([[1.0, 1.0]]))
    one.update_own(torch.tensor([[-1.0, 2.0]]))
    assert one.square_OI.tolist() == [[1.0, 2.5]]


def test_half_precision_weights_give_single_precision_terms() -> None:
    """Sums and products do not round to the weight's type."""
    weight_OI = torch.tensor([[1.0, 0.5]], dtype=torch.bfloat16)
    one = Gradients().begin(weight_OI)
    one.update(torch.tensor([[1.0, 1.0]]))
    one.update(torch.tensor([[2.0**-20, 0.0]]))
    assert one.first_OI.dtype == torch.float32
    assert float(one.first_OI[0, 0]) == 1 + 2.0**-20


def test_squares_must_be_asked_for() -> None:
    """They cost the memory of a second weight."""
    with pytest.raises(AssertionError, match="made without squares"):
        Gradients().begin(torch.ones(1, 1)).update_own(torch.ones(1, 1))


def test_a_request_makes_accumulators_that_know_nothing_of_each_other() -> None:
    """With its settings; it holds no sum itself, and can be asked again."""
    request = Gradients(objective=TaskLoss(labels="reference"), squares=True)
    first, second = request.begin(torch.ones(1, 2)), request.begin(torch.ones(1, 2))
    first.update(torch.ones(1, 2))
    first.update_own(torch.ones(1, 2))
    assert first.squares
    assert repr(first.objective) == repr(request.objective)
    assert second.first_OI.tolist() == [[0.0, 0.0]]
    assert not hasattr(request, "_sum_OI")


def test_the_weight_is_that_of_the_time_when_gradients_were_taken() -> None:
    """It belongs to no graph."""
    weight_OI = torch.ones(1, 2, requires_grad=True)
    one = Gradients().begin(weight_OI)
    assert not one.weight_OI.requires_grad
    assert one.result() is one


@pytest.mark.parametrize(("squares", "floats"), [(False, 1), (True, 2)])
def test_a_sum_of_squares_takes_as_much_memory_again(squares: bool, floats: int) -> None:
    """As the sweep reckons; gradients by sequence are then asked for."""
    one = Gradients(squares=squares)
    assert one.floats == floats
    assert one.by_sequence is squares
