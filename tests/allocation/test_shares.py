"""Budgets shared among blocks: exact by size, within limits, refused where they cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from lightning_prune import OWL, PerBlock, PerPart, PerSite, Uniform, Wanda, WandaSP
from lightning_prune.allocation import meet
from lightning_prune.allocation.owl import outlier_ratio
from lightning_prune.anatomy import Anatomy
from lightning_prune.pipeline import prune
from lightning_prune.sweep import collect, evaluating
from tests.contract.cases import batches, even_model
from tests.sweep.helpers import states_of


def overall(shares: list[float], sizes: list[int]) -> float:
    return sum(share * size for share, size in zip(shares, sizes, strict=True)) / sum(sizes)


@pytest.mark.parametrize("budget", [0.0, 0.05, 0.5, 0.93, 0.99])
@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [7, 1, 100, 3]], ids=str)
@pytest.mark.parametrize(
    "shares",
    [[0.5, 0.5, 0.5, 0.5], [0.9, 0.1, 0.5, 0.3], [-3.0, 9.0, 0.2, 0.4], [5.0, 5.0, 5.0, 5.0]],
    ids=str,
)
def test_shares_meet_the_budget_by_size(
    shares: list[float], sizes: list[int], budget: float
) -> None:
    """Exactly, within the limits, whatever they were, and in the same order."""
    found = meet(shares, budget, sizes)
    assert overall(found, sizes) == pytest.approx(budget, abs=1e-10)
    assert all(0 <= share <= 0.99 for share in found)
    order = sorted(range(4), key=lambda i: shares[i])
    for low, high in zip(order, order[1:], strict=False):
        assert found[low] <= found[high] + 1e-12


def test_what_clipping_takes_goes_to_those_with_room() -> None:
    """A block that would lose more than the limit loses the limit, and the others the rest."""
    assert meet([1.5, 0.3, 0.2], 0.5, [1, 1, 1]) == pytest.approx([0.99, 0.305, 0.205])
    assert meet([0.0, 0.6, 0.9], 0.4, [1, 1, 1]) == pytest.approx([0.0, 0.45, 0.75])


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.4), (0.6, 0.9)])
def test_a_budget_outside_the_limits_is_refused(low: float, high: float) -> None:
    """No shares can make it up."""
    with pytest.raises(ValueError, match=f"between {low:g} and {high:g} make up 0.5"):
        meet([0.5, 0.5], 0.5, [1, 1], low, high)


def test_uniform_shares_are_the_budget() -> None:
    """In every block."""
    assert Uniform().shares(0.3, [5, 1], []) == [0.3, 0.3]


# --- OWL ---


def test_outliers_are_more_than_so_many_times_the_mean() -> None:
    """By a loop; the mean itself is no outlier at 1."""
    score = torch.tensor([1.0, 1.0, 1.0, 1.0, 6.0])  # mean 2
    assert outlier_ratio(score, 2.0) == pytest.approx(1 / 5)
    assert outlier_ratio(score, 3.0) == 0
    assert outlier_ratio(torch.ones(4), 1.0) == 0


@pytest.mark.parametrize("sizes", [[1, 1, 1], [3, 1, 9]], ids=str)
@pytest.mark.parametrize("budget", [0.5, 0.7])
def test_owl_follows_its_equation(sizes: list[int], budget: float) -> None:
    """Shares differ by 2 lambda_ between the extremes, linearly in the outliers between them."""
    outliers = [0.02, 0.05, 0.03]
    shares = OWL(lambda_=0.1).shares(budget, sizes, outliers)
    assert overall(shares, sizes) == pytest.approx(budget, abs=1e-12)
    assert shares[0] - shares[1] == pytest.approx(0.2)
    assert shares[0] - shares[2] == pytest.approx(0.2 / 3)


@pytest.mark.parametrize("budget", [0.02, 0.98])
def test_owl_near_the_ends_keeps_the_budget(budget: float) -> None:
    """Shares that would be negative are 0, and those above the limit are at it."""
    shares = OWL().shares(budget, [1, 2, 3], [0.01, 0.02, 0.09])
    assert overall(shares, [1, 2, 3]) == pytest.approx(budget, abs=1e-10)
    assert all(0 <= share <= 0.99 for share in shares)


def test_owl_gives_equal_blocks_equal_shares() -> None:
    """And one block the budget; there is nothing to divide by."""
    assert OWL().shares(0.6, [1, 1], [0.03, 0.03]) == pytest.approx([0.6, 0.6])
    assert OWL().shares(0.6, [4], [0.03]) == pytest.approx([0.6])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"M": 0.0}, "OWL: M=0.0 is not allowed; it is above 0; 5 is usual"),
        ({"lambda_": -0.1}, r"lambda_=-0.1 is not allowed; it is in \[0, 0.5\); 0.08 is usual"),
        ({"lambda_": 0.5}, "lambda_=0.5 is not allowed"),
    ],
    ids=str,
)
def test_owl_refuses_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    """When it is made."""
    with pytest.raises(ValueError, match=message):
        OWL(**settings)


# --- given shares ---


def test_given_shares_are_taken_as_they_are() -> None:
    """If their mean by size is the budget."""
    assert PerBlock(fractions=[0.2, 0.6]).shares(0.5, [1, 3], []) == [0.2, 0.6]


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([0.4], "PerBlock has 1 fractions for 2 blocks; give one for each"),
        ([0.2, 0.6], r"fractions of PerBlock remove 0.4000 overall, and 0.5 is asked"),
    ],
)
def test_given_shares_that_do_not_fit_are_refused(fractions: list[float], message: str) -> None:
    """Their number and their mean."""
    with pytest.raises(ValueError, match=message):
        PerBlock(fractions=fractions).shares(0.5, [1, 1], [])


@pytest.mark.parametrize("fractions", [[], [0.5, 1.0], [-0.1]], ids=str)
def test_fractions_lie_in_range(fractions: list[float]) -> None:
    """When it is made."""
    message = r"fractions=.* is not allowed; they are numbers in \[0, 1\)"
    with pytest.raises(ValueError, match=message):
        PerBlock(fractions=fractions)


# --- in a method ---


@pytest.mark.parametrize("propagate", ["block", "layer", "none"])
def test_every_block_loses_its_share(propagate: Any) -> None:
    """Of inputs of 32, 48 and 24 features, by the count that is at most the share."""
    shares = [0.25, 0.5, 0.75]
    plan = prune(even_model("llama"), _wanda(PerBlock(fractions=shares), propagate), batches())
    for name in plan.mask_names:
        share = shares[int(name.split(".")[2])]
        assert plan.sparsity(name) == pytest.approx(share), name


def test_owl_looks_at_the_dense_model_whatever_is_propagated() -> None:
    """Its shares do not depend on what the method sees."""
    plans = [prune(even_model("llama"), _wanda(OWL(), propagate), batches()) for propagate in _WAYS]
    counts = [[plan.sparsity(name) for name in plan.mask_names] for plan in plans]
    assert counts[0] == counts[1] == counts[2]
    assert len(set(counts[0])) > 1
    assert plans[0].sparsity() == pytest.approx(0.5, abs=0.02)  # counts are whole numbers


@pytest.mark.parametrize("kinds", [{}, {"attention": False}, {"mlp": False}], ids=str)
def test_owl_shares_units_too(kinds: dict[str, bool]) -> None:
    """Of each kind, within one: the rest is what whole units cannot make up."""
    model = even_model("llama")
    method = WandaSP(ratio=0.5, allocation=OWL(lambda_=0.2), repair=None, **kinds)
    pools = method.pools(method.blocks(Anatomy(model)))
    sizes = [method.size(block) for block in method.blocks(Anatomy(model))]
    shares = OWL(lambda_=0.2).shares(0.5, sizes, _outliers(model))
    assert len(set(shares)) == 3
    plan = prune(model, method, batches())
    for pool in pools:
        removed = plan.blocks(pool.kind)[pool.block].removed
        assert abs(removed - shares[pool.block] * pool.units) < 1.01


def _outliers(model: PreTrainedModel) -> list[float]:
    states, owl = states_of(model, batches()), OWL()
    with evaluating(model):
        sweep = collect(states, owl.evidence, states.anatomy.blocks, "none")
        return [value for block, found in sweep for value in owl.measured(block, found)]


_WAYS: tuple[Any, ...] = ("block", "layer", "none")


def _wanda(allocation: Any, propagate: Any) -> Wanda:
    return Wanda(sparsity=0.5, allocation=allocation, propagate=propagate)


def test_an_allocation_is_told_as_it_was_made() -> None:
    """In the plan's provenance."""
    plan = prune(even_model("llama"), _wanda(OWL(lambda_=0.1), "none"), batches())
    assert plan.provenance["arguments"]["allocation"] == "OWL(lambda_=0.1)"


def test_linears_are_given_their_shares() -> None:
    """One by one, in the order in which they run."""
    shares = [0.25 + 0.01 * place for place in range(21)]
    anatomy = Anatomy(even_model("llama"))
    sites = [site for block in anatomy.blocks for site in block.sites]
    mean = overall(shares, [site.module.weight.numel() for site in sites])
    method = Wanda(sparsity=mean, scope="matrix", allocation=PerSite(fractions=shares))
    plan = prune(anatomy.model, method, batches())
    assert [plan.sparsity(s.weight_name) for s in sites] == pytest.approx(shares, abs=2e-3)
    with pytest.raises(ValueError, match="PerSite has 2 fractions for 21 Linears; give one for"):
        prune(
            even_model("llama"),
            Wanda(sparsity=0.3, allocation=PerSite(fractions=[0.3, 0.3])),
            batches(),
        )


def test_attention_and_mlp_are_given_shares_apart() -> None:
    """Of the groups and of the neurons of each block; together they are the budget."""
    given = PerPart(attention=[0.25, 0.5, 0.0], mlp=[0.5, 0.0, 0.25])
    anatomy = Anatomy(even_model("llama"))
    parts = {kind: [(b.units(kind), b.unit_size(kind)) for b in anatomy.blocks]
             for kind in ("group", "neuron")}  # fmt: skip
    shares = {"group": given.attention, "neuron": given.mlp}
    removed = sum(
        f * n * size for k in parts for f, (n, size) in zip(shares[k], parts[k], strict=True)
    )
    ratio = removed / sum(n * size for kind in parts.values() for n, size in kind)
    plan = prune(anatomy.model, WandaSP(ratio=ratio, allocation=given), batches())
    groups = [kept.removed for kept in plan.blocks("group").values()]
    neurons = [kept.removed for kept in plan.blocks("neuron").values()]
    assert groups == [1, 2, 0]
    assert neurons == pytest.approx([0.5 * 22, 0, 0.25 * 22], abs=1)


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ({"attention": [0.3] * 3, "mlp": [0.3] * 2}, "2 fractions for the mlp of 3 blocks"),
        ({"attention": [0.3] * 3, "mlp": [0.4] * 3}, "remove 0.* overall, and 0.3 is asked for"),
        ({"mlp": [1.3]}, r"mlp=\[1.3\] is not allowed; they are numbers in"),
        ({}, "PerPart has neither attention nor mlp"),
    ],
)
def test_shares_of_parts_that_do_not_fit_are_refused(
    allocation: dict[str, Any], message: str
) -> None:
    """Each with what was found."""
    with pytest.raises(ValueError, match=message):
        prune(even_model("llama"), WandaSP(ratio=0.3, allocation=PerPart(**allocation)), batches())
