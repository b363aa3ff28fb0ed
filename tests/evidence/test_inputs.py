"""Input statistics: against slow loops, and for every kind the same promises."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import isabstract

import pytest
import torch

from lightning_prune.evidence import Gram, InputEvidence, InputNorm
from lightning_prune.evidence.gram import product

CPU = torch.device("cpu")
PACKAGE = InputEvidence.__module__.partition(".")[0]
KINDS = sorted(
    (
        kind
        for kind in InputEvidence.__subclasses__()
        if kind.__module__.startswith(f"{PACKAGE}.") and not isabstract(kind)
    ),
    key=lambda kind: kind.__name__,
)


def inputs(batch: int = 6, tokens: int = 9, width: int = 13, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, width, generator=generator) * 3


def some_padding(batch: int = 6, tokens: int = 9) -> torch.Tensor:
    """True at tokens; sequence b has b tokens of padding on the left."""
    return torch.arange(tokens)[None] >= torch.arange(batch)[:, None]


def fed(
    kind: type[InputEvidence], batches: Iterable[tuple[torch.Tensor, torch.Tensor | None]]
) -> InputEvidence:
    one: InputEvidence | None = None
    for input_BTI, keep_BT in batches:
        one = one or kind().begin(input_BTI.shape[-1], CPU)
        one.update(input_BTI, keep_BT)
    assert one is not None
    return one


def test_norms_equal_a_loop_over_the_tokens() -> None:
    """The root of the sum of squares of every feature over all tokens that count."""
    input_BTI, keep_BT = inputs(), some_padding()
    squares = [0.0] * 13
    for sequence, keep in zip(input_BTI.tolist(), keep_BT.tolist(), strict=True):
        for token, counts in zip(sequence, keep, strict=True):
            for j, value in enumerate(token):
                squares[j] += value * value * counts
    expected_I = torch.tensor(squares, dtype=torch.float64).sqrt().float()
    norm_I = fed(InputNorm, [(input_BTI, keep_BT)]).result()
    assert norm_I.dtype == torch.float32
    torch.testing.assert_close(norm_I, expected_I)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_of_half_precision_do_not_overflow(dtype: torch.dtype) -> None:
    """60000 squared is far above what float16 holds."""
    input_BTI = torch.full((2, 8, 1), 60000.0).to(dtype)
    norm_I = fed(InputNorm, [(input_BTI, None)]).result()
    torch.testing.assert_close(norm_I, input_BTI.float()[0, 0] * 4)


def test_a_long_sum_keeps_its_precision() -> None:
    """A thousand small batches after a large one are not lost."""
    batches = [(torch.full((1, 1, 1), value), None) for value in [1000.0] + [0.1] * 1000]
    exact = (1e6 + 1000 * float(torch.tensor(0.1)) ** 2) ** 0.5
    assert float(fed(InputNorm, batches).result()) == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rubbish", [0.0, 1e30, float("nan"), float("inf")])
def test_padding_does_not_count(kind: type[InputEvidence], rubbish: float) -> None:
    """Whatever stands at padded places, the statistic is that of the tokens alone."""
    input_BTI, keep_BT = inputs(), some_padding()
    padded_BTI = input_BTI.masked_fill(~keep_BT[..., None], rubbish)
    alone = [
        (sequence[keep][None], None) for sequence, keep in zip(input_BTI, keep_BT, strict=True)
    ]
    torch.testing.assert_close(
        fed(kind, [(padded_BTI, keep_BT)]).result(), fed(kind, alone).result()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_does_not_depend_on_batches_or_their_order(kind: type[InputEvidence]) -> None:
    """One by one, in pairs, backwards, all at once: bit for bit, but for one batch's fp32."""
    input_BTI, keep_BT = inputs(), some_padding()
    whole = fed(kind, [(input_BTI, keep_BT)]).result()
    for size in (1, 2, 4):
        parts = list(zip(input_BTI.split(size), keep_BT.split(size), strict=True))
        for order in (parts, parts[::-1]):
            assert_same(kind, fed(kind, order).result(), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_add_up_to_the_whole(kind: type[InputEvidence]) -> None:
    """What two processes collected, added up, is what one would have collected."""
    input_BTI, keep_BT = inputs(), some_padding()
    whole = fed(kind, [(input_BTI, keep_BT)])
    first = fed(kind, [(input_BTI[:2], keep_BT[:2])])
    second = fed(kind, [(input_BTI[2:], keep_BT[2:])])
    for mine, other in zip(first.sums, second.sums, strict=True):
        mine += other
    assert_same(kind, first.result(), whole.result())


def assert_same(kind: type[InputEvidence], found: torch.Tensor, expected: torch.Tensor) -> None:
    """A Gram matrix is multiplied in fp32 within a batch; all else is the same bit for bit."""
    limit = 1e-5 if kind is Gram else 0.0
    torch.testing.assert_close(found, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 13, 130, 300])
def test_the_gram_matrix_is_the_mean_of_outer_products(width: int, dtype: torch.dtype) -> None:
    """Over the tokens that count, whole and symmetric, at widths of one panel and of several.

    What is bfloat16 is multiplied as such, and added up in fp32.
    """
    tokens = width + 9  # more than four for each feature
    input_BTI = inputs(tokens=tokens, width=width).to(dtype)
    keep_BT = some_padding(tokens=tokens)
    one = fed(Gram, [(input_BTI[:2], keep_BT[:2]), (input_BTI[2:], keep_BT[2:])])
    kept_NI = input_BTI[keep_BT].double()
    expected_II = sum(torch.outer(x_I, x_I) for x_I in kept_NI) / len(kept_NI)
    mean_II = one.result()
    torch.testing.assert_close(mean_II.double(), expected_II, rtol=1e-5, atol=1e-6)
    assert torch.equal(mean_II, mean_II.mT)


@pytest.mark.parametrize("right", [torch.float32, torch.bfloat16])
def test_products_with_bfloat16_are_as_precise_as_their_factors(right: torch.dtype) -> None:
    """What is fp32 in them is not rounded."""
    left_NF, right_NI = inputs(1, 300, 40)[0].bfloat16(), inputs(1, 300, 30, seed=1)[0].to(right)
    expected_FI = (left_NF.double().mT @ right_NI.double()).float()
    torch.testing.assert_close(product(left_NF, right_NI), expected_FI, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_elsewhere_are_made_as_precisely_as_before(dtype: torch.dtype) -> None:
    """How the process multiplies fp32 matrices is not changed for good."""
    left_NF, right_FI = inputs(1, 300, 300)[0], inputs(1, 300, 300, seed=1)[0]
    before_NI = left_NF @ right_FI
    fed(Gram, [(inputs(width=300).to(dtype), None)])
    torch.testing.assert_close(left_NF @ right_FI, before_NI, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_left_as_they_were(kind: type[InputEvidence]) -> None:
    """Listening changes nothing."""
    input_BTI = inputs()
    before = input_BTI.clone()
    fed(kind, [(input_BTI, some_padding())])
    assert torch.equal(input_BTI, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_makes_accumulators_that_know_nothing_of_each_other(
    kind: type[InputEvidence],
) -> None:
    """It can be asked for as many as there are inputs, and again for the next method."""
    request = kind()
    first, second = request.begin(13, CPU), request.begin(13, CPU)
    first.update(inputs(), None)
    second.update(inputs(seed=1), None)
    third = request.begin(13, CPU)
    third.update(inputs(), None)
    assert_same(kind, third.result(), first.result())
    assert repr(third) == repr(request) == f"{kind.__name__}()"
