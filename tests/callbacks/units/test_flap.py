"""FLAP: what it standardises, squares and compares."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune import FLAP, GlobalStandardised, Uniform, distributed
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Moments
from lightning_prune.pipeline import prune
from lightning_prune.scores.flap import feature_score
from lightning_prune.scores.wanda import unit_mean
from lightning_prune.selection import standardised
from tests.contract.cases import batches, even_model
from tests.scores.by_hand import random
from tests.sweep.helpers import padded, shared_model, split
from tests.tiny import tiny_model


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


def test_the_reference_fluctuation_is_refused_in_several_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each sees sequences of its own, in no common order."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    anatomy = Anatomy(even_model("llama"))
    FLAP(ratio=0.5).check(anatomy)
    with pytest.raises(ValueError, match="2 processes share them; use one process or 'variance'"):
        FLAP(ratio=0.5, fluctuation="reference").check(anatomy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "WIF"}, "FLAP: metric='WIF' .* one of 'WIFV', 'WIFN', 'IFV'"),
        ({"fluctuation": "welford"}, "fluctuation='welford' .* one of 'variance', 'reference'"),
    ],
)
def test_wrong_options_are_refused(settings: dict[str, Any], message: str) -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match=message):
        FLAP(ratio=0.5, **settings)
