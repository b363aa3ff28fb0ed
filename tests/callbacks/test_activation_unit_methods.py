"""FLAP, WandaSP, CFSP and MagnitudeSP: their scores against slow loops, and their options."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from lightning_prune import (
    CFSP,
    FLAP,
    GlobalStandardised,
    MagnitudeSP,
    Uniform,
    WandaSP,
    distributed,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Moments
from lightning_prune.pipeline import prune
from lightning_prune.scores.cfsp import neuron_score, relative
from lightning_prune.scores.flap import feature_score
from lightning_prune.scores.magnitude import unit_norm
from lightning_prune.scores.wanda import column_score, unit_mean
from lightning_prune.selection import standardised
from tests.callbacks.test_scores import random, rows_and_columns
from tests.contract.cases import batches, even_model
from tests.sweep.helpers import padded, shared_model, split
from tests.tiny import MODEL_TYPES, tiny_model


def weight(rows: int = 4, columns: int = 6, seed: int = 0) -> list[list[float]]:
    return random(rows, columns, seed=seed).double().tolist()


def moments(width: int = 6) -> Moments:
    return Moments(*(random(width, seed=seed).double().abs() + 0.1 for seed in (1, 2, 3)))


@pytest.mark.parametrize("metric", ["WIFV", "WIFN", "IFV"])
def test_flaps_metrics_equal_their_equations(metric: Any) -> None:
    """Var(X_j) · Σ_i W_ij², mean over i of |W_ij| · ||X_j||, Var(X_j)."""
    rows, of = weight(), moments()
    found_I = feature_score(metric, torch.tensor(rows), of)
    assert found_I.shape == (6,)
    for j in range(6):
        column = [row[j] for row in rows]
        expected = {
            "WIFV": float(of.variance_I[j]) * sum(w * w for w in column),
            "WIFN": statistics.fmean(abs(w) for w in column) * float(of.norm_I[j]),
            "IFV": float(of.variance_I[j]),
        }[metric]
        assert float(found_I[j]) == pytest.approx(expected, rel=1e-5)


def test_standardised_features_have_mean_0_and_deviation_1() -> None:
    """By the deviation of a sample, as FLAP's code takes it; equal features are all 0."""
    score_I = random(30).double().exp()
    mean, deviation = statistics.fmean(score_I.tolist()), statistics.stdev(score_I.tolist())
    expected_I = ((score_I - mean) / deviation).float()
    torch.testing.assert_close(standardised([score_I])[0], expected_I)
    for width in (0, 1, 5):
        assert standardised([torch.full((width,), 3.0)])[0].tolist() == [0.0] * width


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_column_scores_are_means_of_wandas(dtype: torch.dtype) -> None:
    """Mean over the rows of |W_ij| · ||X_j||, in fp32 whatever the weight's type."""
    weight_OI, norm_I = random(4, 6).to(dtype), random(6, seed=1).abs() * 1e5
    found_I = column_score(weight_OI, norm_I)
    assert found_I.dtype == torch.float32
    expected_I = (weight_OI.double().abs() * norm_I.double()).mean(dim=0).float()
    torch.testing.assert_close(found_I, expected_I)


@pytest.mark.parametrize("kind", ["group", "neuron"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_units_have_the_mean_of_their_own_columns(model_type: str, kind: str) -> None:
    """A group those of its query heads, whatever the size of a head; a neuron its one."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    site = block.reader(kind).site
    score_I = random(site.module.in_features)
    found_U = unit_mean(block, kind, score_I)
    path = site.name.removeprefix(f"{block.name}.")
    for unit, found in enumerate(found_U.tolist()):
        axis, columns = rows_and_columns(model_type, kind, unit)[path]
        assert axis == 1
        expected = statistics.fmean(float(score_I[j]) for j in sorted(columns))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", ["group", "neuron"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt"])
def test_unit_norms_are_of_all_weights_of_a_unit(model_type: str, power: int, kind: str) -> None:
    """Rows and columns alike, each weight once, biases not at all."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    weights = {site.name: site.module.weight.detach() for site in block.sites}
    expected = []
    for unit in range(block.units(kind)):
        total = 0.0
        for path, (axis, features) in rows_and_columns(model_type, kind, unit).items():
            part = weights[f"{block.name}.{path}"].double()
            part = (part if axis == 0 else part.T)[sorted(features)]
            total += sum(abs(w) ** power for w in part.flatten().tolist())
        expected.append(total ** (1 / power))
    torch.testing.assert_close(unit_norm(block, kind, power), torch.tensor(expected))


# --- CFSP ---


def shares(rows: list[list[float]], formula: str) -> list[list[float]]:
    """|A| of neuron u and feature d over its sum along neurons (paper) or features (code)."""
    if formula == "code":
        return [[abs(a) / sum(map(abs, row)) for a in row] for row in rows]
    totals = [sum(abs(row[d]) for row in rows) for d in range(len(rows[0]))]
    return [[abs(a) / totals[d] for d, a in enumerate(row)] for row in rows]


@pytest.mark.parametrize("formula", ["paper", "code"])
@pytest.mark.parametrize(("b", "c"), [(1.0, 1.0), (0.5, 2.0), (0.0, 0.0)])
def test_cfsps_metrics_equal_their_equations(b: float, c: float, formula: Any) -> None:
    """The table in the docstring of the module, number by number."""
    down, up, gate = weight(7, 4), weight(7, 4, seed=1), weight(7, 4, seed=2)
    norm = (random(7, seed=3).double().abs() + 0.1).tolist()
    heard = [[w * x**b for w in row] for row, x in zip(down, norm, strict=True)]
    n_down, n_heard, n_up, n_gate = (shares(part, formula) for part in (down, heard, up, gate))
    for u, x in enumerate(norm):
        rest = statistics.fmean(n_up[u]) + statistics.fmean(n_gate[u])
        expected = {
            "three_w_one_wa": (statistics.fmean(n_heard[u]) + rest) * x**c,
            "three_w_one_a": (statistics.fmean(n_down[u]) + rest) * x**c,
            "one_wa": statistics.fmean(n_heard[u]) * x**c,
            "one_a": statistics.fmean(n_down[u]) * x**0.5,
            "wanda_base": statistics.fmean(abs(w) for w in down[u]) * x,
            "mag_base": sum(w * w for w in down[u]) ** 0.5,
        }
        for metric, value in expected.items():
            found_U = neuron_score(
                metric,  # type: ignore[arg-type]
                formula,
                torch.tensor(down).double(),
                [torch.tensor(up).double(), torch.tensor(gate).double()],
                torch.tensor(norm).double(),
                b,
                c,
            )
            assert found_U.shape == (7,)
            assert float(found_U[u]) == pytest.approx(value, rel=1e-6), metric


@pytest.mark.parametrize("formula", ["paper", "code"])
def test_weights_of_zero_have_a_relative_size_of_zero(formula: Any) -> None:
    """A dead neuron, or a feature that no neuron writes, is not 0/0."""
    weight_UD = random(5, 3)
    weight_UD[2], weight_UD[:, 1] = 0, 0
    found_UD = relative(weight_UD, formula)
    assert torch.isfinite(found_UD).all()
    assert not found_UD[2].any()
    assert not found_UD[:, 1].any()


@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt"])
def test_cfsp_finds_the_rows_of_every_family(model_type: str) -> None:
    """Gate and up apart, in one matrix, or a single Linear that stands for both."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    norm_U = random(22, seed=5).abs() + 0.1
    site = block.reader("neuron").site
    method = CFSP(ratio=0.5, allocation=Uniform())
    found_U = method.score(block, {site.table.reads: norm_U})["neuron"]
    paths = {
        "llama": ("mlp.gate_proj", "mlp.up_proj"),
        "phi3": ("mlp.gate_up_proj",),
        "opt": ("fc1",),
    }[model_type]
    rows = torch.cat([block.module.get_submodule(path).weight.detach() for path in paths])
    expected_U = neuron_score(
        "three_w_one_wa",
        "paper",
        site.module.weight.detach().T,
        [part.detach() for part in rows.split(22)],
        norm_U,
    )
    torch.testing.assert_close(found_U, expected_U)


# --- whole methods ---


@pytest.mark.parametrize("size", [1, 3])
def test_the_order_of_sequences_shows_in_the_reference_fluctuation_alone(size: int) -> None:
    """Its first sequence does not count; the variance treats all alike, in any batches."""
    data, found = split(padded("left"), size), {}
    for fluctuation in ("variance", "reference"):
        for name, ordered in {"forth": split(padded("left"), 1), "back": data[::-1]}.items():
            ordered = [
                {k: v.flip(0) for k, v in b.items()} if name == "back" else b for b in ordered
            ]
            method = FLAP(ratio=0.4, fluctuation=fluctuation, keep_scores=True, repair=None)
            found[fluctuation, name] = prune(tiny_model("llama"), method, ordered).scores(
                "neuron", 1
            )
    torch.testing.assert_close(
        found["variance", "forth"], found["variance", "back"], rtol=1e-3, atol=1e-4
    )
    gap_U = (found["reference", "forth"] - found["reference", "back"]).abs()
    assert float(gap_U.max()) > 0.05


def test_only_attention_is_squared() -> None:
    """As in FLAP's code: the mean of a group's squared features, the neurons as they were."""
    block = Anatomy(shared_model("llama")).blocks[1]
    evidence = {
        block.reader(kind).site.table.reads: Moments(
            *(random(block.reader(kind).site.module.in_features, seed=s).abs() for s in (1, 2, 3))
        )
        for kind in ("group", "neuron")
    }
    plain = FLAP(ratio=0.5).score(block, evidence)
    squared = FLAP(ratio=0.5, square_attention=True).score(block, evidence)
    assert torch.equal(plain["neuron"], squared["neuron"])
    site = block.reader("group").site
    score_I = feature_score("WIFV", site.module.weight, evidence[site.table.reads])
    expected_U = unit_mean(block, "group", standardised([score_I.square()])[0])
    torch.testing.assert_close(squared["group"], expected_U)


def test_flap_compares_across_blocks_unless_told_otherwise() -> None:
    """Blocks of different widths; with Uniform all the same, with attention_ratio these heads."""
    kept = {}
    for name, settings in {
        "AL-AM": {},
        "UL-UM": {"allocation": Uniform()},
        "AL-MM": {"attention_ratio": 0.25},
        "UL-MM": {"attention_ratio": 0.25, "allocation": Uniform()},
    }.items():
        model = even_model("llama")
        prune(model, FLAP(ratio=0.4, repair=None, **settings), batches())
        kept[name] = [(block.kv_heads, block.width) for block in Anatomy(model).blocks]
    assert len(set(kept["AL-AM"])) > 1
    assert max(n for _, n in kept["UL-UM"]) - min(n for _, n in kept["UL-UM"]) <= 1
    assert sum(groups for groups, _ in kept["AL-MM"]) == 9
    assert [groups for groups, _ in kept["UL-MM"]] == [3, 3, 3]
    assert isinstance(FLAP(ratio=0.4).effective_allocation, GlobalStandardised)


IMPOSSIBLE = {
    *((0.1, 0.3), (0.1, 0.6), (0.1, 0.9), (0.3, 0.6), (0.3, 0.9)),  # more groups than the budget
    *((0.6, 0.0), (0.6, 0.1), (0.6, 0.3)),  # more than all neurons
    *((0.9, share) for share in (0.0, 0.1, 0.3, 0.6, 0.9)),  # one unit of each kind stays
}


@pytest.mark.parametrize("allocation", [Uniform(), GlobalStandardised()], ids=repr)
@pytest.mark.parametrize("attention_ratio", [0.0, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6, 0.9])
def test_a_share_of_groups_meets_the_budget_or_is_refused(
    ratio: float, attention_ratio: float, allocation: Any
) -> None:
    """Within half a neuron a block; never silently off because whole groups took too much."""
    method = WandaSP(ratio, allocation=allocation, attention_ratio=attention_ratio)
    anatomy = Anatomy(even_model("llama"))
    pools = method.pools(anatomy.blocks)
    scores: dict[int, dict[str, torch.Tensor]] = {}
    for pool in pools:
        scores.setdefault(pool.block, {})[pool.kind] = random(pool.units, seed=pool.block)
    if (ratio, attention_ratio) in IMPOSSIBLE:
        with pytest.raises(ValueError, match="neurons can make up for|can go"):
            method.check(anatomy)
        return
    method.check(anatomy)
    shares = dict.fromkeys(scores, ratio)
    decisions = method.decide(anatomy.blocks, scores, shares, ratio)
    gone = sum(
        (pool.units - len(decisions[pool.block].kept[pool.kind])) * pool.size for pool in pools
    )
    neuron = min(pool.size for pool in pools)
    asked = ratio * sum(pool.parameters for pool in pools)
    assert abs(gone - asked) <= len(anatomy.blocks) * neuron / 2


@pytest.mark.parametrize("method", [FLAP(ratio=0.5), WandaSP(ratio=0.5), MagnitudeSP(ratio=0.5)])
@pytest.mark.parametrize("groups", [1, 0])
def test_blocks_with_one_group_or_none_have_scores(groups: int, method: Any) -> None:
    """One key/value head, and attention that was dropped before: finite, one a unit."""
    block = Anatomy(tiny_model("llama", num_key_value_heads=1)).blocks[0]
    if groups == 0:
        for site in block.sites:
            rows, columns = site.table.rows, site.table.columns
            if columns == "query":
                site.module.weight.data = site.module.weight.data[:, :0]
                site.module.in_features = 0
            elif "neuron" not in (*rows, columns):
                site.module.weight.data = site.module.weight.data[:0]
                site.module.out_features = 0
    evidence: dict[str, Any] = {}
    for kind in ("group", "neuron"):
        site, norm_I = block.reader(kind).site, random(block.reader(kind).site.module.in_features)
        one = Moments(norm_I, norm_I.abs(), norm_I.abs())
        evidence[site.table.reads] = one if isinstance(method, FLAP) else one.norm_I
    scores = method.score(block, evidence)
    assert {kind: score_U.numel() for kind, score_U in scores.items()} == {
        kind: block.units(kind) for kind in ("group", "neuron") if block.units(kind)
    }
    assert all(torch.isfinite(score_U).all() for score_U in scores.values())


def test_magnitudes_need_no_calibration_without_a_repair() -> None:
    """No batches are asked for."""
    assert prune(even_model("llama"), MagnitudeSP(ratio=0.5, repair=None)).removes_anything
    with pytest.raises(ValueError, match="needs calibration batches"):
        prune(even_model("llama"), MagnitudeSP(ratio=0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FLAP(ratio=0.5, metric="WIF"), "metrics WIFV, WIFN, IFV"),  # type: ignore[arg-type]
        (
            lambda: FLAP(ratio=0.5, fluctuation="welford"),  # type: ignore[arg-type]
            "fluctuation is 'variance' or 'reference'",
        ),
        (lambda: CFSP(ratio=0.5, metric="wanda"), "CFSP has the metrics three_w_one_wa"),  # type: ignore[arg-type]
        (lambda: CFSP(ratio=0.5, formula="book"), "formula is 'paper' or 'code'"),  # type: ignore[arg-type]
        (lambda: CFSP(ratio=0.5, b=-1.0), "powers of activation norms"),
        (lambda: CFSP(ratio=0.5, attention=True), "CFSP scores MLP neurons only"),
        (lambda: MagnitudeSP(ratio=0.5, norm=3), "norm=3 must be 1 or 2"),
    ],
)
def test_wrong_options_are_refused(make: Any, message: str) -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match=message):
        make()


def test_the_reference_fluctuation_is_refused_in_several_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each sees sequences of its own, in no common order."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    anatomy = Anatomy(even_model("llama"))
    FLAP(ratio=0.5).check(anatomy)
    with pytest.raises(ValueError, match="2 processes share them; use one process or 'variance'"):
        FLAP(ratio=0.5, fluctuation="reference").check(anatomy)
