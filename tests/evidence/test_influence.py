"""What is averaged over tokens to tell the influence of a block."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from lightning_prune.evidence import BlockEvidence, Measure, Removal, measure
from lightning_prune.evidence.influence import MEASURES, Angular, Cosine

CPU = torch.device("cpu")


def test_equal_and_empty_vectors_are_no_nan() -> None:
    """Rounding above 1 is clamped; a zero vector is taken for a right angle's half."""
    state_BTD = torch.randn(1, 50, 7, generator=torch.Generator().manual_seed(0))
    for kind in (Cosine, Angular):
        one = kind().begin(CPU)
        one.update(state_BTD, 3 * state_BTD, None)
        assert one.result() == pytest.approx(0, abs=1e-7)
    zero = Cosine().begin(CPU)
    zero.update(torch.zeros(1, 2, 7), state_BTD[:, :2], None)
    assert zero.result() == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"span": 0}, "Cosine: span=0 is not allowed; it is 1 or more"),
        ({"span": 2, "part": "mlp"}, "span=2 is not allowed; a part is measured alone"),
        ({"part": "head"}, "part='head' is not allowed; it is one of 'block', 'attention', 'mlp'"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings: dict[str, Any], message: str) -> None:
    """When it is asked for."""
    with pytest.raises(ValueError, match=message):
        Cosine(**settings)


@pytest.mark.parametrize("name", get_args(Measure))
def test_every_measure_has_its_evidence(name: Any) -> None:
    """By the name that users write; "removal" is tried, all others are listened for."""
    evidence = measure(name, part="mlp", windows=5)
    assert evidence.part == "mlp"  # type: ignore[attr-defined]
    if name == "removal":
        assert isinstance(evidence, Removal)
        assert evidence.windows == 5
    else:
        assert type(evidence) is MEASURES[name]
        assert measure(name, span=3).span == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MEASURES)
def test_two_halves_add_up_to_the_whole(name: str) -> None:
    """What two processes saw, added up, is what one would have seen; padding does not count."""
    before_BTD = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    after_BTD = before_BTD + torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
    keep_BT = torch.arange(6)[None] >= torch.arange(4)[:, None]
    padded_BTD = after_BTD.masked_fill(~keep_BT[..., None], torch.nan)
    whole, first, second = (MEASURES[name]().begin(CPU) for _ in range(3))
    whole.update(before_BTD, padded_BTD, keep_BT)
    for half, rows in ((first, slice(0, 1)), (second, slice(1, 4))):
        half.update(before_BTD[rows], padded_BTD[rows], keep_BT[rows])
    for mine, other in zip(first.sums, second.sums, strict=True):
        mine += other
    assert first.result() == pytest.approx(whole.result(), rel=1e-12)


def test_what_is_measured_by_its_sweep_has_no_result_of_its_own() -> None:
    """Asked for all the same, it says so."""
    with pytest.raises(NotImplementedError, match="Removal is measured by its sweep itself"):
        Removal().result()
    assert not isinstance(Removal(), BlockEvidence)
