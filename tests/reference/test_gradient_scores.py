"""Gradient scores of the original research codes, met by this package.

LLM-Pruner 128a07d; RyotaKoba/Structured_AFR f45bdf2 and b43e3dd (SNIP, ReFer, AFR, first window
only). "Proper" SNIP is plain autograd. All in fp32 on windows of 128 tokens.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from lightning_prune import AFR, SNIP, ReFer, Taylor, WeightAFR
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Feature, Gradients, Objective, TaskLoss
from lightning_prune.scores.products import unit_products
from lightning_prune.scores.taylor import salience
from lightning_prune.sweep import collect, losses
from tests.reference.stories import golden, stories, windows
from tests.sweep.helpers import states_of

MODES: list[Any] = ["vectorize", "param_first", "param_second", "param_mix"]
SITES = ("gate_proj", "up_proj", "down_proj")

Swept = list[tuple[Block, dict[str, Gradients]]]


def swept(objective: Objective, count: int) -> Swept:
    """Of each block, on the first windows."""
    return _swept(repr(objective), count)


@cache
def _swept(objective: str, count: int) -> Swept:
    """Once for all objectives that are made by the same call."""
    states = states_of(stories(), windows("calibration", count)[:1])
    wanted = Gradients(
        objective=eval(objective, {"TaskLoss": TaskLoss, "Feature": Feature}), squares=count > 1
    )
    sweep = collect(states, wanted, states.anatomy.blocks, "none")
    return [(block, dict(found)) for block, found in sweep][::-1]


def objectives_of(method: PruningCallback) -> list[Objective]:
    return [request.objective for request in method.requests() if isinstance(request, Gradients)]


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-4 of the largest number."""
    limit = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=limit)


def scores(method: PruningCallback, kind: str = "neuron", count: int = 1) -> torch.Tensor:
    """Of every unit of every block, (L, U)."""
    tables = [
        {block.index: method.score(block, found) for block, found in swept(objective, count)}
        for objective in objectives_of(method)
    ]
    together = method.combine(tables) if len(tables) > 1 else tables[0]
    return torch.stack([table[kind] for table in together.values()])


@pytest.mark.parametrize("grouping", ["sum", "mean", "max", "prod", "first"])
@pytest.mark.parametrize("mode", MODES)
def test_taylor_scores_of_neurons_are_llm_pruners(mode: Any, grouping: Any) -> None:
    """All modes and reductions over gate row, up row and down column."""
    method = Taylor(ratio=0.5, mode=mode, grouping=grouping, attention=False)
    expected_LU = golden("llmpruner_scores")[f"mlp.{mode}.{grouping}.all"]
    assert_close(scores(method, count=16), expected_LU)


@pytest.mark.parametrize("mode", MODES)
def test_taylor_scores_on_fewer_windows_are_llm_pruners(mode: Any) -> None:
    """The first four of them."""
    method = Taylor(ratio=0.5, mode=mode, attention=False)
    assert_close(scores(method, count=4), golden("llmpruner_scores")[f"mlp.{mode}.sum.first4"])


@pytest.mark.parametrize("mode", MODES)
def test_query_heads_are_scored_with_the_key_value_head_that_they_use(mode: Any) -> None:
    """LLM-Pruner's fold adds heads h, h + 4 to key/value head h; ours are 2h, 2h + 1."""
    expected_LU = golden("llmpruner_scores")[f"attn_kvhead_REFERENCE_MISALIGNED.{mode}"]
    misaligned = []
    for block, found in swept(TaskLoss(), 16):
        total_K = torch.zeros(4 * 8)
        for member in block.members("group"):
            part_OI = salience(found[member.site.weight_name], mode)
            part_FD = member.gather(part_OI, 4).flatten(0, 1)
            score_F = part_FD.sum(dim=1).abs() if mode == "vectorize" else part_FD.abs().sum(dim=1)
            total_K += score_F.view(-1, 4 * 8).sum(dim=0)
        misaligned.append(total_K.view(4, 8).sum(dim=1))
    assert_close(torch.stack(misaligned), expected_LU)
    right_LU = scores(Taylor(ratio=0.5, mode=mode, mlp=False), "group", 16)
    assert ((right_LU - expected_LU).abs() > 0.01 * expected_LU).any()
    torch.testing.assert_close(right_LU.sum(), expected_LU.sum(), rtol=1e-4, atol=0)


def products(objective: Objective, count: int = 1) -> torch.Tensor:
    """Signed, of gate, up and down together, (L, D, U)."""
    return torch.stack(
        [
            unit_products(block, "neuron", {name: one.first_OI for name, one in found.items()}).T
            for block, found in swept(objective, count)
        ]
    )


@pytest.mark.parametrize(
    ("objective", "file", "name"),
    [
        (TaskLoss(), "snip_proper", "snip_proper_first_window_M"),
        (TaskLoss(labels="reference"), "afr_weight_M", "snip_M"),
        (Feature(kind="frobenius", modules="all"), "afr_weight_M", "fo_M"),
        (Feature(kind="frobenius", modules="all"), "afr_weight_M", "refer_svd_M"),
    ],
)
def test_signed_products_are_the_codes(objective: Objective, file: str, name: str) -> None:
    """By their options where the codes are wrong, else by the defaults."""
    assert_close(products(objective), golden(file)[name])


def test_products_of_all_windows_are_those_of_the_mean_loss() -> None:
    """As plain autograd gives them in one batch."""
    assert_close(products(TaskLoss(), 16), golden("snip_proper")["snip_proper_all_windows_M"])


def test_the_defaults_are_not_what_the_codes_compute() -> None:
    """Their labels and their modules make other products."""
    theirs = golden("afr_weight_M")
    for objective, name in ((TaskLoss(), "snip_M"), (Feature(kind="frobenius"), "fo_M")):
        found, expected = products(objective).flatten(), theirs[name].flatten()
        assert float(torch.corrcoef(torch.stack([found, expected]))[0, 1]) < 0.9


REFERENCE: dict[str, Any] = {"ratio": 0.5, "attention": False}
FROBENIUS: dict[str, Any] = {"kind": "frobenius", "modules": "all"}
EARLIER: dict[str, Any] = {"labels": "reference", "power": 1.0}

AUTHORS = {
    "afr_head_mean_abs": lambda: AFR(trim=0.0, **FROBENIUS, **EARLIER, **REFERENCE),
    "afr_signed_snr": lambda: AFR(aggregate="snr", **FROBENIUS, **EARLIER, **REFERENCE),
    "afr_b43e3dd_abs_snr": lambda: AFR(
        aggregate="snr", signed=False, **FROBENIUS, **EARLIER, **REFERENCE
    ),
    "refer_svd_frobenius_snr": lambda: ReFer(aggregate="snr", **FROBENIUS, **REFERENCE),
    "refer_l1_signed_mean": lambda: ReFer(
        kind="l1", modules="all", aggregate="mean", trim=0.0, **REFERENCE
    ),
    "structured_snip_signed_mean": lambda: SNIP(labels="reference", aggregate="mean", **REFERENCE),
}


@pytest.mark.parametrize("tag", AUTHORS)
def test_neuron_scores_and_kept_neurons_are_the_codes(tag: str) -> None:
    """With the options that stand for each version; the code keeps one neuron more than half."""
    found_LU = scores(AUTHORS[tag]())
    assert_close(found_LU, golden("afr_neuron_scores")[f"{tag}.combined"])
    for score_U, mask_U in zip(found_LU, golden("afr_kept_mask")[tag].bool(), strict=True):
        highest = score_U.topk(86 + 1).indices.sort().values
        assert highest.tolist() == mask_U.nonzero().flatten().tolist()


@pytest.mark.parametrize("tag", [tag for tag in AUTHORS if tag.startswith("afr")])
def test_both_parts_of_afr_are_the_codes(tag: str) -> None:
    """Before they are standardised."""
    method = AUTHORS[tag]()
    for objective, name in zip(objectives_of(method), ("fo", "snip"), strict=True):
        parts = [method.score(block, found)["neuron"] for block, found in swept(objective, 1)]
        assert_close(torch.stack(parts), golden("afr_neuron_scores")[f"{tag}.{name}"])


def flat(table: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """All gate projections, then up, then down, row by row."""
    names = [f"model.layers.{i}.mlp.{site}.weight" for site in SITES for i in range(5)]
    together = {name: score for scores in table for name, score in scores.items()}
    return torch.cat([together[name].flatten() for name in names])


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (TaskLoss(labels="reference"), "snip"),
        (Feature(kind="l1", modules="all"), "refer_l1"),
        (Feature(kind="frobenius", modules="all"), "refer_svd_frobenius"),
    ],
)
def test_scores_of_single_weights_are_the_codes(objective: Objective, name: str) -> None:
    """|w·g| of every MLP weight."""
    table = [{n: one.absolute_OI for n, one in found.items()} for _, found in swept(objective, 1)]
    assert_close(flat(table), golden("afr_unstructured_scores")[name])


def test_afr_of_single_weights_is_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With singular values; this one code sees no outputs in containers, such as the decoder's."""
    inside = losses._tensor
    monkeypatch.setattr(
        losses, "_tensor", lambda o: None if hasattr(o, "last_hidden_state") else inside(o)
    )
    method = WeightAFR(
        sparsity=0.5, kind="nuclear", modules="all", labels="reference", include="*.mlp.*"
    )
    anatomy = Anatomy(stories())
    tables: list[dict[int, dict[str, torch.Tensor]]] = []
    states = states_of(anatomy.model, windows("calibration", 1)[:1])
    for request in method.requests():
        sweep = collect(states, request, method.blocks(anatomy), "none")
        tables.append({block.index: method.score(block, found) for block, found in sweep})
    found = flat([dict(scores) for scores in method.combine(tables).values()])
    assert_close(found, golden("afr_unstructured_scores")["afr_true_svd"])
