"""RIA: its score by a slow loop, and its permutations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import RIA
from lightning_prune.anatomy import Anatomy
from lightning_prune.pipeline import prune
from lightning_prune.surgery import mask_block
from lightning_prune.sweep import collect
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.sweep.helpers import states_of
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model


@torch.no_grad()
def folded(model: nn.Module, method: RIA) -> dict[str, torch.Tensor]:
    """Reorder a model as the method would, and zero nothing; the sums of what it would keep."""
    kept: dict[str, torch.Tensor] = {}
    states = states_of(model, batches())
    blocks = method.blocks(states.anatomy)
    for block, evidence in collect(states, method.evidence, blocks, method.propagate):
        decision, scores = method.prune_block(block, evidence, method.fraction)
        mask_block(block, {}, {}, decision.weights)
        kept |= {name: scores[name][keep].sum() for name, keep in decision.masks.items()}
    return kept


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_folding_leaves_the_function_and_keeps_more(model_type: str) -> None:
    """Before anything is zeroed, logits are the dense ones; folded Linears keep more score.

    Heads of 8, so that groups of 4 do not cross them; OPT's are of 4, one group, and gain nothing.
    """
    overrides: dict[str, Any] = {} if model_type == "opt" else {"head_dim": 8}
    model = even_model(model_type, **overrides)
    dense = copy.deepcopy(model)
    plain = folded(copy.deepcopy(model), RIA(pattern="2:4", propagate="none"))
    found = folded(model, RIA(pattern="2:4", propagate="none", permute="fold"))
    with torch.no_grad():
        torch.testing.assert_close(
            model(tiny_batch()).logits, dense(tiny_batch()).logits, rtol=1e-4, atol=2e-5
        )
    free = ("neuron",) if model_type == "opt" else ("neuron", "query")
    for site in sites(model):
        name = site.weight_name
        if site.table.columns in free:
            assert found[name] > plain[name], name
        else:
            torch.testing.assert_close(found[name], plain[name], rtol=1e-5, atol=0)


def sites(model: nn.Module) -> list[Any]:
    return [site for block in Anatomy(model).blocks for site in block.sites]


@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt"])
def test_a_folded_model_is_n_of_m_as_it_is_stored(model_type: str, tmp_path: Path) -> None:
    """In every Linear; and its plan, which carries what was moved, gives the same model."""
    model = even_model(model_type)
    plan = prune(model, RIA(pattern="2:4", permute="fold"), batches())
    for site in sites(model):
        kept_OG = (site.module.weight != 0).unflatten(1, (-1, 4)).sum(dim=2)
        assert (kept_OG == 2).all(), site.name
    again = even_model(model_type)
    prune(again, RIA(plan=plan.save(tmp_path, model)))
    assert_same_state(again, state(model))


def test_heads_that_groups_would_cross_stay_in_order() -> None:
    """Heads of 6 and groups of 4: only neurons move."""
    model = even_model("llama")
    plan = prune(model, RIA(pattern="2:4", permute="fold"), batches())
    assert {name.split(".")[-2] for name in plan.corrected} == {
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_virtual_permutations_keep_weights_where_they_are() -> None:
    """Half of every row stays, in no stored pattern; nothing is corrected."""
    model = even_model("llama")
    before = state(model)
    plan = prune(model, RIA(pattern="2:4", permute="virtual"), batches())
    assert not plan.corrected
    crossed = 0
    for site in sites(model):
        keep_OI = plan.mask(site.weight_name)
        assert (keep_OI.sum(dim=1) == keep_OI.shape[1] // 2).all()
        assert torch.equal(site.module.weight, before[site.weight_name] * keep_OI)
        crossed += int((keep_OI.unflatten(1, (-1, 4)).sum(dim=2) != 2).sum())
    assert crossed > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 0.5, "permute": "fold"}, "permute='fold' .* there is none; give pattern"),
        ({"pattern": "2:4", "permute": "all"}, "permute='all' is not allowed; .*'none', 'fold'"),
        (
            {"pattern": "2:4", "permute": "fold", "propagate": "layer"},
            "use propagate='block' or 'none'",
        ),
        ({"sparsity": 0.5, "power": -1.0}, "power=-1.0 is not allowed; it is 0 or more"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    """When the method is made."""
    with pytest.raises(ValueError, match=message):
        RIA(**settings)


@pytest.mark.parametrize("permute", ["fold", "virtual"])
def test_overflowing_activations_are_refused_before_an_order_is_looked_for(permute: Any) -> None:
    """There is none among infinities."""
    model = even_model("llama")
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"scores of .*q_proj.* are not finite: the activations"):
        prune(model, RIA(pattern="2:4", permute=permute), batches())


def test_folding_where_nothing_can_move_is_refused() -> None:
    """Before calibration."""
    exclude = ["*.gate_proj", "*.v_proj"]
    with pytest.raises(ValueError, match="permute='fold' finds no input whose order is free"):
        prune(tiny_model("llama"), RIA(pattern="1:2", permute="fold", exclude=exclude), batches())
