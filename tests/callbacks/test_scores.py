"""The score of every method, against a slow loop written from its equation."""

from __future__ import annotations

import pytest
import torch
from lightning_prune.callbacks.residual_fit import dense_target

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import PairedGram
from lightning_prune.scores.magnitude import magnitude_score
from lightning_prune.scores.taylor import taylor_score
from lightning_prune.scores.wanda import adaptive_score, wanda_score
from tests.sweep.helpers import shared_model
from tests.tiny import MODEL_TYPES


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_wanda_scores_are_weights_times_norms(dtype: torch.dtype) -> None:
    """S_ij = |W_ij| · ||X_j||_2, in fp32 whatever the weight's type."""
    weight_OI, norm_I = random(3, 5).to(dtype), random(5, seed=1).abs() * 1e5
    score_OI = wanda_score(weight_OI, norm_I)
    assert score_OI.dtype == torch.float32
    for i in range(3):
        for j in range(5):
            expected = abs(float(weight_OI[i, j])) * float(norm_I[j])
            assert float(score_OI[i, j]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_magnitude_scores_are_magnitudes(dtype: torch.dtype) -> None:
    """|W_ij| in fp32."""
    weight_OI = random(3, 5).to(dtype)
    score_OI = magnitude_score(weight_OI)
    assert score_OI.dtype == torch.float32
    assert score_OI.tolist() == [[abs(x) for x in row] for row in weight_OI.tolist()]


def rows_and_columns(model_type: str, kind: str, unit: int) -> dict[str, tuple[int, set[int]]]:
    """Of each site, the axis and the features that make up a unit, counted by hand.

    8 heads in 4 groups (OPT: 8 groups), heads of 6 features (OPT: 4), 22 neurons.
    """
    size = 4 if model_type == "opt" else 6
    heads = 1 if model_type == "opt" else 2
    query = set(range(unit * heads * size, (unit + 1) * heads * size))
    key = set(range(unit * size, (unit + 1) * size))
    if model_type == "phi3":
        key_rows = {48 + f for f in key}
        value_rows = {48 + 24 + f for f in key}
        groups = {
            "self_attn.qkv_proj": (0, query | key_rows | value_rows),
            "self_attn.o_proj": (1, query),
        }
        neurons = {"mlp.gate_up_proj": (0, {unit, 22 + unit}), "mlp.down_proj": (1, {unit})}
    else:
        out = "self_attn.out_proj" if model_type == "opt" else "self_attn.o_proj"
        groups = {
            "self_attn.q_proj": (0, query),
            "self_attn.k_proj": (0, key),
            "self_attn.v_proj": (0, key),
            out: (1, query),
        }
        neurons = {
            "mlp.gate_proj": (0, {unit}),
            "mlp.up_proj": (0, {unit}),
            "mlp.down_proj": (1, {unit}),
        }
        if model_type == "opt":
            neurons = {"fc1": (0, {unit}), "fc2": (1, {unit})}
    return groups if kind == "group" else neurons


@pytest.mark.parametrize("kind", ["group", "neuron"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_taylor_scores_sum_over_all_weights_of_a_unit(model_type: str, kind: str) -> None:
    """A group has its query heads, not those of other groups; every weight counts once."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    saliency = {
        site.weight_name: random(*site.module.weight.shape, seed=i).abs()
        for i, site in enumerate(block.sites)
    }
    expected = []
    for unit in range(block.units(kind)):
        total = 0.0
        for path, (axis, features) in rows_and_columns(model_type, kind, unit).items():
            part = saliency[f"{block.name}.{path}.weight"]
            part = part if axis == 0 else part.T
            total += float(part[sorted(features)].sum())
        expected.append(total)
    found = taylor_score(block, kind, saliency)
    assert found.shape == (block.units(kind),)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("levels", [None, 2])
def test_adaptive_scores_are_shares_of_the_rows_total(levels: int | None) -> None:
    """A score and all lower ones of its row, of equal ones those before it, by their sum."""
    score_OI = random(4, 7).abs() if levels is None else random(4, 7).sign() + 1
    found_OI = adaptive_score(score_OI)
    for i in range(4):
        row = score_OI[i].tolist()
        for j in range(7):
            lower = [x for k, x in enumerate(row) if (x, k) <= (row[j], j)]
            expected = sum(lower) / sum(row)
            assert float(found_OI[i, j]) == pytest.approx(expected, rel=1e-6)


def test_a_row_of_zeros_has_no_adaptive_score() -> None:
    """It goes first, and is not NaN."""
    assert not adaptive_score(torch.zeros(2, 3)).any()


@pytest.mark.parametrize("trust", [0.5, 1.0])
@pytest.mark.parametrize("adds", [True, False])
def test_dense_targets_do_best_what_the_dense_model_does(trust: float, adds: bool) -> None:
    """The ridge regression of dense outputs and residual error on the pruned inputs, by lstsq."""
    weight_OI, input_NI = random(3, 5).double(), random(40, 5, seed=1).double()
    dense_NI = input_NI + 0.3 * random(40, 5, seed=2).double()
    error_NO = random(40, 3, seed=3).double() if adds else torch.zeros(40, 3).double()
    paired = PairedGram(
        input_NI.T @ input_NI / 40,
        dense_NI.T @ input_NI / 40,
        error_NO.T @ input_NI / 40 if adds else None,
    )
    ridge = 0.1 * paired.gram_II.diagonal().mean()
    rows = torch.cat([input_NI, (40 * ridge).sqrt() * torch.eye(5).double()])
    wanted = torch.cat([dense_NI @ weight_OI.T + error_NO, (40 * ridge).sqrt() * weight_OI.T])
    best_OI = torch.linalg.lstsq(rows, wanted).solution.T
    found_OI = dense_target(weight_OI, paired, 0.1, trust)
    torch.testing.assert_close(found_OI, (1 - trust) * weight_OI + trust * best_OI)
