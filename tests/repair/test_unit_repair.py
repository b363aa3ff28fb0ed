"""What is done about units that were removed, on one Linear."""

from __future__ import annotations

import pytest
import torch

from lightning_prune import Bias, LeastSquares
from lightning_prune.evidence import CrossGram, Gram, InputEvidence, InputMean
from lightning_prune.repair import Repair
from lightning_prune.repair.unit_repair import Fixed

OUTPUTS, INPUTS, TOKENS = 5, 12, 200
KEEP_I = torch.tensor([True, False, True, True, False, True, True, False, True, True, True, False])


def inputs(seed: int = 0) -> torch.Tensor:
    """Correlated features with a mean, (N, I)."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(INPUTS, INPUTS, generator=generator)
    return torch.randn(TOKENS, INPUTS, generator=generator) @ mixed + torch.randn(
        INPUTS, generator=generator
    )


def weights() -> torch.Tensor:
    return torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(7))


def result(evidence: InputEvidence, input_NI: torch.Tensor) -> object:
    one = evidence.begin(INPUTS, torch.device("cpu"))
    one.update(input_NI[None], None)
    return one.result()


def error(repair: Repair | None, input_NI: torch.Tensor) -> float:
    """Of the output, over the same tokens; None: nothing is done about what was removed."""
    weight_OI = weights()
    new_OI, bias_O = Fixed(weight_OI * KEEP_I, None)
    if repair is not None:
        found = result(repair.evidence, input_NI)
        new_OI, bias_O = repair.fix(weight_OI, None, KEEP_I, found)
    assert not new_OI[:, ~KEEP_I].any()
    output = input_NI @ new_OI.mT + (0 if bias_O is None else bias_O)
    return float((output - input_NI @ weight_OI.mT).square().sum())


def test_every_repair_is_better_than_the_one_before() -> None:
    """None, then the mean, then least squares."""
    input_NI = inputs()
    none = error(None, input_NI)
    bias = error(Bias(), input_NI)
    fitted = error(LeastSquares(ridge=1e-6, trust=0), input_NI - input_NI.mean(0))
    assert bias < none
    assert fitted < error(None, input_NI - input_NI.mean(0)) <= bias * (1 + 1e-5)


def test_least_squares_solves_its_equation() -> None:
    """Row by row, as stacked rows of a plain least-squares problem."""
    input_NI, weight_OI, ridge = inputs(), weights(), 0.05
    gram_II = result(Gram(), input_NI)
    new_OI, _ = LeastSquares(ridge=ridge, trust=0).fix(weight_OI, None, KEEP_I, gram_II)
    kept_NS = input_NI[:, KEEP_I].double() / TOKENS**0.5
    strength = ridge * kept_NS.square().sum(0).mean()
    stacked = torch.cat([kept_NS, strength.sqrt() * torch.eye(kept_NS.shape[1])])
    for row in range(OUTPUTS):
        wanted = input_NI.double() @ weight_OI[row].double() / TOKENS**0.5
        right = torch.cat([wanted, strength.sqrt() * weight_OI[row, KEEP_I].double()])
        expected = torch.linalg.lstsq(stacked, right).solution
        torch.testing.assert_close(new_OI[row, KEEP_I].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trust", [0.25, 1.0])
def test_the_dense_model_is_followed_as_far_as_it_is_trusted(trust: float) -> None:
    """Target: a mean of the layer's output and the dense layer's with what is wrong beside it."""
    input_NI, dense_NI, weight_OI = inputs(), inputs() + 0.3 * inputs(1), weights()
    error_ND = torch.randn(TOKENS, OUTPUTS, generator=torch.Generator().manual_seed(2))
    both = CrossGram().begin(INPUTS, torch.device("cpu"), adds=OUTPUTS)
    both.update_pair(input_NI[None], dense_NI[None], error_ND[None], None)
    new_OI, _ = LeastSquares(ridge=1e-6, trust=trust).fix(weight_OI, None, KEEP_I, both.result())
    layer_NO, dense_NO = input_NI @ weight_OI.mT, dense_NI @ weight_OI.mT + error_ND
    wanted_NO = layer_NO.lerp(dense_NO, trust).double()
    expected = torch.linalg.lstsq(input_NI[:, KEEP_I].double(), wanted_NO).solution.mT
    torch.testing.assert_close(new_OI[:, KEEP_I].double(), expected, rtol=1e-2, atol=1e-2)


def test_a_feature_that_never_changes_is_replaced_by_the_bias() -> None:
    """What was removed is made up for exactly, and a bias that is there is added to."""
    input_NI, weight_OI = inputs(), weights()
    input_NI[:, ~KEEP_I] = torch.tensor([1.0, -2.0, 3.0, 0.5])
    before_O = torch.arange(5.0)
    new_OI, bias_O = Bias().fix(weight_OI, before_O, KEEP_I, result(InputMean(), input_NI))
    assert bias_O is not None
    torch.testing.assert_close(
        input_NI @ new_OI.mT + bias_O, input_NI @ weight_OI.mT + before_O, rtol=1e-4, atol=1e-4
    )


def test_dead_inputs_leave_the_weights_as_they_are() -> None:
    """Nothing can be learnt from zeros; no division by zero."""
    new_OI, _ = LeastSquares(trust=0).fix(weights(), None, KEEP_I, torch.zeros(INPUTS, INPUTS))
    assert torch.equal(new_OI, weights() * KEEP_I)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": 0}, "ridge=0 is not allowed; it is above 0, usually 0.001 to 0.1"),
        ({"ridge": -1}, "ridge=-1 is not allowed; it is above 0, usually"),
        ({"ridge": float("inf")}, "ridge=inf is not allowed"),
        ({"trust": 1.5}, r"trust=1.5 is not allowed; it is in \[0, 1\]"),
        ({"trust": -1}, r"trust=-1 is not allowed; it is in \[0, 1\]"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    """And the message says what is usual."""
    with pytest.raises(ValueError, match=message):
        LeastSquares(**settings)


def test_infinite_inputs_are_refused() -> None:
    """Before anything is solved."""
    gram_II = torch.full((INPUTS, INPUTS), float("inf"))
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        LeastSquares(trust=0).fix(weights(), None, KEEP_I, gram_II)
