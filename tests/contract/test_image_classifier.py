"""A family that the package knows nothing of, whose models read images and not text.

One table describes it; sweeps, evidence, methods and pipeline are those of language models.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune import Magnitude, Sensitivity, SparseGPT, Wanda, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Removal, measure
from lightning_prune.plan import Plan
from lightning_prune.sweep import collect
from tests.contract.images import assert_masked, lowest_go, sites
from tests.contract.vit import IMAGES, batches
from tests.sweep.helpers import block_inputs, states_of, traces
from tests.tiny import tiny_classifier

Propagated = pytest.mark.parametrize("propagate", ["block", "layer", "none"])


pytestmark = pytest.mark.usefixtures("images_known")


@torch.no_grad()
def site_norms(model: nn.Module) -> dict[str, torch.Tensor]:
    """The norm of every site's input over all rows of all images, by hooks over the whole model."""
    found: dict[str, torch.Tensor] = {}
    handles = []
    for site in [*sites(model), *Anatomy(model).head.sites]:

        def note(_: nn.Module, args: tuple[Any, ...], name: str = site.name) -> None:
            found[name] = args[0].flatten(0, -2).double().norm(dim=0).float()

        handles.append(site.module.register_forward_pre_hook(note))
    model(pixel_values=IMAGES["pixel_values"])
    for handle in handles:
        handle.remove()
    return found


def test_the_table_describes_the_model() -> None:
    """Every Linear of a block, its counts, and the classifier behind the last one."""
    model = tiny_classifier()
    anatomy = Anatomy(model)
    for block in anatomy.blocks:
        linears = [m for m in block.module.modules() if isinstance(m, nn.Linear)]
        assert sorted(map(id, linears)) == sorted(id(site.module) for site in block.sites)
        assert (block.heads, block.kv_heads, block.head_dim, block.width) == (4, 4, 8, 24)
    assert anatomy.head.sites[0].weight_name == "classifier.weight"
    assert anatomy.body is model.vit


def test_hidden_states_are_the_models_own() -> None:
    """In front of every block, and the logits behind the last one."""
    model = tiny_classifier()
    states = states_of(model, batches())
    expected = [block_inputs(model, {"pixel_values": b["pixel_values"]}) for b in batches()]
    with states.from_start(), torch.no_grad():
        for block in states.anatomy.blocks:
            for i in states.indices:
                found = states.entering(i)
                torch.testing.assert_close(found, expected[i][block.index], rtol=0, atol=0)
            states.advance(block)
        for i, batch in enumerate(batches()):
            logits = model(pixel_values=batch["pixel_values"]).logits
            torch.testing.assert_close(states.logits(i, states.entering(i)), logits)
            losses = F.cross_entropy(logits, batch["labels"], reduction="none")
            torch.testing.assert_close(states.losses(i, states.entering(i)), losses)


def test_magnitude_removes_the_smallest_weights() -> None:
    """Of every matrix, and of the classifier where it is asked for; nothing is calibrated."""
    dense, model = tiny_classifier(), tiny_classifier()
    plan = prune(model, Magnitude(sparsity=0.4, head=True))
    for site in [*sites(dense), *Anatomy(dense).head.sites]:
        expected_OI = lowest_go(site.module.weight.detach().abs(), 0.4)
        assert torch.equal(plan.mask(site.weight_name), expected_OI)
    assert_masked(model, plan, dense)


@Propagated
@pytest.mark.parametrize("size", [1, 4])
def test_wanda_removes_by_what_each_layer_reads(propagate: Any, size: int) -> None:
    """Of the dense model, or of one in which all before it is pruned; all rows count."""
    dense, model = tiny_classifier(), tiny_classifier()
    method = Wanda(sparsity=0.5, propagate=propagate, head=True)
    plan = prune(model, method, [{"pixel_values": b["pixel_values"]} for b in batches(size)])
    seen = copy.deepcopy(dense)
    for block in [*Anatomy(seen).blocks, Anatomy(seen).head]:
        norms = site_norms(seen)
        for group in block.inputs().values():
            if propagate == "layer":
                norms = site_norms(seen)
            for site in group:
                score_OI = dense.get_parameter(site.weight_name).detach().abs() * norms[site.name]
                expected_OI = torch.stack([lowest_go(row, 0.5) for row in score_OI])
                assert torch.equal(plan.mask(site.weight_name), expected_OI), site.name
                if propagate == "layer":
                    site.module.weight.data.mul_(expected_OI)
        for site in block.sites if propagate == "block" else ():
            site.module.weight.data.mul_(plan.mask(site.weight_name))
    assert_masked(model, plan, dense)


@Propagated
@pytest.mark.parametrize("settings", [{"sparsity": 0.5}, {"pattern": "2:4"}], ids=str)
def test_sparsegpt_corrects_what_stays(propagate: Any, settings: dict[str, Any]) -> None:
    """Exact counts, in all Linears of all blocks, whichever changes it sees."""
    dense, model = tiny_classifier(), tiny_classifier()
    plan = prune(model, SparseGPT(**settings, propagate=propagate), batches())
    assert set(plan.mask_names) == set(plan.corrected) == {s.weight_name for s in sites(model)}
    assert all(plan.sparsity(name) == 0.5 for name in plan.mask_names)
    assert_masked(model, plan, dense)
    for name in plan.mask_names:
        assert not torch.equal(_kept(model, plan, name), _kept(dense, plan, name)), name


def _kept(model: nn.Module, plan: Plan, name: str) -> torch.Tensor:
    return model.get_parameter(name).detach()[plan.mask(name)]


def test_influence_is_that_of_all_rows() -> None:
    """1 - cos of what enters a block and what enters the next, the class token's row included."""
    model = tiny_classifier()
    states = states_of(model, batches())
    inputs = block_inputs(model, {"pixel_values": IMAGES["pixel_values"]})
    found = collect(states, measure("cosine"), states.anatomy.blocks, "none")
    values = {block.index: results["block"] for block, results in found}
    assert list(values) == [0, 1, 2]
    for index in (0, 1):
        cosine_BT = F.cosine_similarity(inputs[index].double(), inputs[index + 1].double(), dim=-1)
        assert values[index] == pytest.approx(float((1 - cosine_BT).mean()), rel=1e-5)


@pytest.mark.parametrize("part", ["block", "attention", "mlp"])
def test_removal_is_what_the_loss_rises_by(part: Any) -> None:
    """The exponential of the mean loss, as it is the perplexity of a language model."""
    model = tiny_classifier()
    before, states = traces(model), states_of(model, batches())

    @torch.no_grad()
    def exponential(of: nn.Module) -> float:
        logits = of(pixel_values=IMAGES["pixel_values"]).logits
        return float(F.cross_entropy(logits, IMAGES["labels"]).exp())

    speaks = {"attention": ["query"], "mlp": ["neuron"], "block": ["query", "neuron"]}[part]
    found = collect(states, Removal(part=part, windows=0), states.anatomy.blocks, "none")
    for block, results in found:
        other = copy.deepcopy(model)
        for site in Anatomy(other).blocks[block.index].sites:
            if site.table.columns in speaks:
                site.module.weight.data.zero_()
                if part == "block":  # a bias belongs to no unit
                    site.module.bias.data.zero_()
        expected = exponential(other) - exponential(model)
        assert results["block"] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert traces(model) == before


@Propagated
def test_sensitivity_shares_the_budget_among_layers(propagate: Any) -> None:
    """By trials on images; the budget is met within the rounding of rows."""
    dense, model = tiny_classifier(), tiny_classifier()
    method = Wanda(sparsity=0.5, propagate=propagate, allocation=Sensitivity(windows=2))
    plan = prune(model, method, batches(1))
    assert len({plan.sparsity(name) for name in plan.mask_names}) > 3
    assert plan.sparsity() == pytest.approx(0.5, abs=0.03)
    assert_masked(model, plan, dense)


def test_a_saved_plan_gives_the_identical_model(tmp_path: Path) -> None:
    """Corrected weights included."""
    model, again = tiny_classifier(), tiny_classifier()
    plan = prune(model, SparseGPT(sparsity=0.5), batches())
    prune(again, SparseGPT(plan=plan.save(tmp_path, model)))
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_what_an_image_model_does_not_have_is_refused() -> None:
    """It has no table of token embeddings to prune."""
    with pytest.raises(ValueError, match="embeddings=True, and ViTForImageClassification has"):
        prune(tiny_classifier(), Magnitude(sparsity=0.5, embeddings=True))


@pytest.mark.parametrize("batch", [{"input_ids": torch.ones(2, 4)}, torch.ones(1, 3, 8, 8)])
def test_what_is_no_batch_of_images_is_refused(batch: Any) -> None:
    """With the shape that is wanted."""
    with pytest.raises(ValueError, match=r"pixel_values of shape \(B, channels, height, width\)"):
        prune(tiny_classifier(), Wanda(sparsity=0.5), [batch])
