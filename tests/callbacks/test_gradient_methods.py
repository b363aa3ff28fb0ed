"""Scores from gradients, against their equations written as loops."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune import (
    AFR,
    OWL,
    RIA,
    SNIP,
    Magnitude,
    PerBlock,
    ReFer,
    Relevance,
    Sensitivity,
    SparseGPT,
    Taylor,
    Wanda,
    WeightAFR,
    WeightReFer,
    WeightRelevance,
    WeightSNIP,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from tests.tiny import tiny_batch, tiny_model

IDS = tiny_batch(3, 10)
BATCHES = [{"input_ids": part} for part in IDS.split(2)]


def model_of(model_type: str = "llama") -> nn.Module:
    return tiny_model(model_type)


def loss_gradients(ids_BT: torch.Tensor, model_type: str = "llama") -> dict[str, torch.Tensor]:
    """Of the mean cross entropy, by plain autograd."""
    model = model_of(model_type).requires_grad_()
    logits_BTV = model(ids_BT, use_cache=False).logits
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def feature_gradients(kind: str) -> dict[str, torch.Tensor]:
    """Of the mean over sequences of the features' norms in all Linears, by plain autograd."""
    model, outputs = model_of().requires_grad_(), list[torch.Tensor]()
    for block in Anatomy(model).blocks:
        for site in block.sites:
            site.module.register_forward_hook(lambda _, __, output: outputs.append(output))
    model(IDS, use_cache=False)
    norm = (
        torch.Tensor.norm if kind == "frobenius" else lambda one: torch.linalg.svdvals(one).mean()
    )
    total = torch.stack([norm(one_TK) for output in outputs for one_TK in output]).sum()
    (total / len(IDS)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def parts(block: int, kind: str, unit: int) -> Iterator[tuple[str, int, list[int]]]:
    """A unit of the tiny Llama: weight, axis, features. 4 groups of 2 heads of 6, 22 neurons."""
    name = f"model.layers.{block}."
    if kind == "neuron":
        for site, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
            yield f"{name}mlp.{site}.weight", axis, [unit]
        return
    query, own = list(range(12 * unit, 12 * unit + 12)), list(range(6 * unit, 6 * unit + 6))
    for site, axis, rows in (("q", 0, query), ("k", 0, own), ("v", 0, own), ("o", 1, query)):
        yield f"{name}self_attn.{site}_proj.weight", axis, rows


def scores(method: PruningCallback) -> Plan:
    return prune(model_of(), method, BATCHES)


@pytest.mark.parametrize("mode", ["vectorize", "param_first", "param_second", "param_mix"])
@pytest.mark.parametrize("kind", ["group", "neuron"])
def test_taylor_is_its_equation(kind: str, mode: Any) -> None:
    """Feature by feature, over all that a unit has."""
    plan = scores(Taylor(ratio=0.4, mode=mode, keep_scores=True))
    weights, gradients = model_of().state_dict(), loss_gradients(IDS)
    alone = [loss_gradients(ids_T[None]) for ids_T in IDS]
    for block in range(3):
        for unit, found in enumerate(plan.scores(kind, block).tolist()):
            expected = 0.0
            for name, axis, features in parts(block, kind, unit):
                fisher_OI = torch.stack([one[name].square() for one in alone]).mean(dim=0)
                for feature in features:
                    w = weights[name].select(axis, feature)
                    g = gradients[name].select(axis, feature)
                    f = fisher_OI.select(axis, feature)
                    expected += float(
                        {
                            "vectorize": (w * g).sum().abs(),
                            "param_first": (w * g).abs().sum(),
                            "param_second": (w * f * w).abs().sum(),
                            "param_mix": (w * g - 0.5 * w * f * w).abs().sum(),
                        }[mode]
                    )
            assert found == pytest.approx(expected, rel=2e-3, abs=1e-6)


def products(gradients: dict[str, torch.Tensor], block: int, kind: str, unit: int) -> list[float]:
    """w·g of a unit: queries, keys, values and outputs added up feature by feature of a head."""
    weights, width = model_of().state_dict(), 1 if kind == "neuron" else 6
    total = torch.zeros(width, 32)
    for name, axis, features in parts(block, kind, unit):
        for place, feature in enumerate(features):
            product = weights[name] * gradients[name]
            total[place % width] += product.select(axis, feature)
    return total.flatten().tolist()


def aggregated(values: list[float], how: str, trim: float) -> float:
    cut = int(len(values) * trim)
    values = sorted(values)[cut : len(values) - cut]
    mean = statistics.fmean(values)
    if how == "snr":
        return abs(mean) / (statistics.stdev(values) + 1e-8)
    return abs(mean) if how == "mean_abs" else mean


@pytest.mark.parametrize("kind", ["group", "neuron"])
@pytest.mark.parametrize(
    ("aggregate", "trim"), [("mean_abs", 0.0), ("snr", 0.1), ("mean", 0.02)], ids=str
)
def test_snip_is_its_equation(kind: str, aggregate: Any, trim: float) -> None:
    """The signed products of a unit, trimmed and averaged."""
    plan = scores(SNIP(ratio=0.4, aggregate=aggregate, trim=trim, keep_scores=True))
    gradients = loss_gradients(IDS)
    for unit, found in enumerate(plan.scores(kind, 1).tolist()):
        expected = aggregated(products(gradients, 1, kind, unit), aggregate, trim)
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("feature", ["nuclear", "frobenius"])
def test_refer_is_its_equation(feature: Any) -> None:
    """Magnitude of the trimmed mean over the standard deviation, of products of the features."""
    plan, gradients = (
        scores(ReFer(ratio=0.4, kind=feature, aggregate="snr", keep_scores=True)),
        feature_gradients(feature),
    )
    for kind in ("group", "neuron"):
        for unit, found in enumerate(plan.scores(kind, 0).tolist()):
            expected = aggregated(products(gradients, 0, kind, unit), "snr", 0.02)
            assert found == pytest.approx(expected, rel=5e-3, abs=1e-4)


def z(values: list[float]) -> list[float]:
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return [(value - mean) / deviation for value in values]


@pytest.mark.parametrize("kind", ["group", "neuron"])
def test_afr_is_its_equation(kind: str) -> None:
    """Two tables over all blocks, the second raised to a power, standardised and added."""
    plan = scores(AFR(ratio=0.4, kind="frobenius", power=1.5, keep_scores=True))
    units = [(block, unit) for block in range(3) for unit in range(4 if kind == "group" else 22)]

    def table(gradients: dict[str, torch.Tensor]) -> list[float]:
        return [aggregated(products(gradients, *[b, kind, u]), "mean_abs", 0.02) for b, u in units]

    feature, loss = table(feature_gradients("frobenius")), table(loss_gradients(IDS))
    expected = [a + b for a, b in zip(z(feature), z([x**1.5 for x in loss]), strict=True)]
    found = [float(plan.scores(kind, block)[unit]) for block, unit in units]
    assert found == pytest.approx(expected, rel=5e-3, abs=5e-3)


def test_the_parts_of_afr_are_kept_with_the_scores() -> None:
    """Each objective's under its name, so that they can be compared."""
    plan = scores(AFR(ratio=0.4, kind="frobenius", keep_scores=True))
    feature, loss = (plan.scores(f"neuron/{name}", 0) for name in ("Feature", "TaskLoss"))
    assert feature.shape == loss.shape == (22,)
    assert not torch.allclose(feature, loss)


def weights_of(plan: Plan) -> torch.Tensor:
    return torch.cat([plan.scores("weight", name).flatten() for name in plan.mask_names])


def test_single_weights_are_compared_across_all_blocks() -> None:
    """The lowest |w·g| go wherever they are, exactly as many as asked for."""
    plan, gradients = scores(WeightSNIP(sparsity=0.37, keep_scores=True)), loss_gradients(IDS)
    weights = model_of().state_dict()
    for name in plan.mask_names:
        expected_OI = (weights[name] * gradients[name]).abs()
        torch.testing.assert_close(plan.scores("weight", name), expected_OI, rtol=2e-3, atol=1e-6)
    score, keep = weights_of(plan), torch.cat([plan.mask(n).flatten() for n in plan.mask_names])
    assert int((~keep).sum()) == math.floor(0.37 * keep.numel())
    assert score[~keep].max() <= score[keep].min()
    shares = {n: float((~plan.mask(n)).float().mean()) for n in plan.mask_names}
    assert max(shares.values()) - min(shares.values()) > 0.05


def test_afr_of_single_weights_adds_what_is_standardised_over_all_of_them() -> None:
    """ReFer's and SNIP's magnitudes of products."""
    settings: dict[str, Any] = {"sparsity": 0.5, "keep_scores": True}
    found = weights_of(scores(WeightAFR(kind="frobenius", **settings)))
    refer = weights_of(scores(WeightReFer(kind="frobenius", **settings)))
    snip = weights_of(scores(WeightSNIP(**settings)))
    expected = (refer - refer.mean()) / refer.std() + (snip - snip.mean()) / snip.std()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cls", [Magnitude, Wanda], ids=lambda cls: cls.__name__)
def test_any_score_can_be_compared_across_all_blocks(cls: type[Magnitude | Wanda]) -> None:
    """By the scores of the dense model."""
    plan = scores(cls(sparsity=0.5, scope="global", keep_scores=True))
    score, keep = weights_of(plan), torch.cat([plan.mask(n).flatten() for n in plan.mask_names])
    assert int((~keep).sum()) == keep.numel() // 2
    assert score[~keep].max() <= score[keep].min()
    if cls is Wanda:
        dense = scores(Wanda(sparsity=0.5, propagate="none", keep_scores=True))
        assert torch.equal(weights_of(dense), score)


def test_an_allocation_takes_the_place_of_a_common_threshold() -> None:
    """Then every matrix has its share; as by a scope that says so."""
    for settings in ({"allocation": PerBlock(fractions=[0.5] * 3)}, {"scope": "matrix"}):
        plan = scores(WeightSNIP(sparsity=0.5, **settings))
        for name in plan.mask_names:
            assert int((~plan.mask(name)).sum()) == plan.mask(name).numel() // 2


def test_the_head_can_be_scored_by_the_loss() -> None:
    """It has a gradient of the loss, and none of the features in front of it."""
    plan = scores(WeightSNIP(sparsity=0.5, head=True, keep_scores=True))
    weight = model_of().state_dict()["lm_head.weight"]
    expected = (weight * loss_gradients(IDS)["lm_head.weight"]).abs()
    torch.testing.assert_close(
        plan.scores("weight", "lm_head.weight"), expected, rtol=2e-3, atol=1e-6
    )
    for cls in (WeightReFer, WeightAFR):
        with pytest.raises(
            ValueError, match="head=True is not allowed; .* features lie in front of the head"
        ):
            scores(cls(sparsity=0.5, head=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Taylor(ratio=0.5, mode="third"), "mode='third' .* one of 'vectorize', 'param_fi"),
        (lambda: Taylor(ratio=0.5, grouping="min"), "grouping='min' .* 'max', 'prod', 'first'"),
        (lambda: SNIP(ratio=0.5, labels="last"), "labels='last' .* one of 'all', 'reference'"),
        (lambda: SNIP(ratio=0.5, aggregate="max"), "aggregate='max' .*'mean_abs', 'snr', 'mean'"),
        (lambda: SNIP(ratio=0.5, trim=-0.1), r"SNIP: trim=-0.1 .* either end, it is in \[0, 0.5\)"),
        (lambda: ReFer(ratio=0.5, trim=0.5), r"ReFer: trim=0.5 .* either end, it is in \[0, 0.5\)"),
        (lambda: ReFer(ratio=0.5, kind="svd"), "kind='svd' .*'nuclear', 'frobenius', 'l1'"),
        (lambda: AFR(ratio=0.5, aggregate="mean"), "aggregate='mean' .* one of 'mean_abs', 'snr'"),
        (lambda: AFR(ratio=0.5, trim=0.7), r"AFR: trim=0.7 .* either end, it is in \[0, 0.5\)"),
        (lambda: AFR(ratio=0.5, power=0), "power=0 is not allowed; it is above 0; 1 leaves SNIP's"),
        (
            lambda: WeightSNIP(sparsity=0.5, scope="global", allocation=OWL()),
            r"allocation=OWL\(\) gives each block a share of its own; take one of them",
        ),
        (
            lambda: WeightSNIP(sparsity=0.5, allocation=Sensitivity()),
            "take an allocation per block",
        ),
        (lambda: SparseGPT(sparsity=0.5, scope="global"), "needs all scores first"),
        (lambda: RIA(sparsity=0.5, scope="global"), "needs all scores first"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    """Before anything runs."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("cls", [Relevance, WeightRelevance])
@pytest.mark.parametrize("name", ["token", "against"])
@pytest.mark.parametrize("value", [64, -1])
def test_tokens_that_the_model_lacks_are_refused(cls: Any, name: str, value: Any) -> None:
    """Before anything runs, with those that it has."""
    amount = {"ratio": 0.3} if cls is Relevance else {"sparsity": 0.3}
    with pytest.raises(ValueError, match=rf"{name}={value!r} is not .* from 0 to 63, or None"):
        prune(tiny_model("llama"), cls(**amount, **{name: value}), [])
