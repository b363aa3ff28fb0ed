"""What gets a share of its own, and how a method is given its shares."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune import CFSP, PerBlock, PerPart, PerSite, Wanda, WandaSP, WeightSNIP
from lightning_prune.anatomy import Anatomy
from lightning_prune.studies.slots import Slots, share_grid
from tests.contract.cases import even_model


def slots_of(method: Any, per: Any, shares: list[float] | None = None) -> Slots:
    blocks = method.blocks(Anatomy(even_model("llama")))
    return Slots(method, blocks, per, shares or share_grid(0.4, 0.5))


def test_the_grid_lies_around_the_mean_share() -> None:
    """As far up as down, the mean among them; nothing and nearly all are left out."""
    assert share_grid(0.4, 0.5) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert share_grid(0.7, 0.5) == pytest.approx([0.4, 0.55, 0.7, 0.85])
    assert 0.3 in share_grid(0.3, 0.25)
    assert share_grid(0.3, 1.0) == pytest.approx([0.3, 0.6])


def test_slots_are_blocks_their_parts_or_linears() -> None:
    """Together they are all that the method works on."""
    sizes = {per: slots_of(Wanda(sparsity=0.4), per).sizes for per in ("block", "part", "site")}
    assert [len(one) for one in sizes.values()] == [3, 6, 21]
    assert len({sum(one) for one in sizes.values()}) == 1
    names = [slot.name for slot in slots_of(WandaSP(ratio=0.4), "part").each]
    assert names == [f"block {i} {part}" for i in range(3) for part in ("attention", "mlp")]


def test_levels_that_remove_the_same_are_one() -> None:
    """Of few GQA groups; what is removed is counted in whole units."""
    attention, mlp = slots_of(WandaSP(ratio=0.4), "part").each[:2]
    unit = attention.part.unit_size("group")
    assert [gone / unit for gone in attention.removed] == [0, 1, 2, 3]
    assert len(mlp.shares) == 5
    assert mlp.removed[1] == round(0.2 * 24) * mlp.part.unit_size("neuron")


@pytest.mark.parametrize(
    ("method", "per", "shares", "allocation"),
    [
        (CFSP(ratio=0.4), "block", [0.1, 0.2, 0.3], PerBlock(fractions=[0.1, 0.2, 0.3])),
        (
            WandaSP(ratio=0.4),
            "part",
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            PerPart(attention=[0.1, 0.3, 0.5], mlp=[0.2, 0.4, 0.6]),
        ),
        (
            Wanda(sparsity=0.4, include="*.mlp.*", layer_end=2),
            "part",
            [0.1, 0.2],
            PerSite(fractions=[0.1, 0.1, 0.1, 0.2, 0.2, 0.2]),
        ),
        (
            Wanda(sparsity=0.4, include="*.o_proj"),
            "site",
            [0.1, 0.2, 0.3],
            PerSite(fractions=[0.1, 0.2, 0.3]),
        ),
    ],
    ids=["block", "part of units", "part of weights", "site"],
)
def test_a_method_is_given_its_shares(
    method: Any, per: Any, shares: list[float], allocation: Any
) -> None:
    """By the allocation that can say them; the method that was given stays as it was."""
    before = repr(method)
    given = slots_of(method, per).with_shares(shares)
    assert repr(given.effective_allocation) == repr(allocation)
    assert repr(method) == before


@pytest.mark.parametrize(
    ("method", "per", "message"),
    [
        (WandaSP(ratio=0.4), "site", "reach over several; take 'block' or 'part'"),
        (WandaSP(ratio=0.4, attention_ratio=0.2), "part", "attention_ratio=0.2 says what goes"),
        (WeightSNIP(sparsity=0.4), "site", "decides by block"),
        (Wanda(pattern="2:4"), "block", "fixes the sparsity of every block"),
    ],
)
def test_shares_that_a_method_cannot_have_are_refused(method: Any, per: Any, message: str) -> None:
    """With what it can have."""
    with pytest.raises(ValueError, match=message):
        slots_of(method, per)


def test_exact_shares_meet_the_budget_by_size() -> None:
    """They are moved as little as that takes."""
    slots = slots_of(WandaSP(ratio=0.4), "part")
    shares = slots.exact([0.3, 0.5, 0.4, 0.4, 0.2, 0.6], 0.4)
    total = sum(f * n for f, n in zip(shares, slots.sizes, strict=True))
    assert total / sum(slots.sizes) == pytest.approx(0.4, abs=1e-6)
    assert shares[1] - shares[0] == pytest.approx(0.2, abs=1e-5)
