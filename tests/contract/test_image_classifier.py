"""A family that the package knows nothing of, whose models read images and not text.

One table describes it; sweeps, evidence, methods and pipeline are those of language models.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune import Magnitude, Sensitivity, SparseGPT, Taylor, Wanda, WeightSNIP, prune
from lightning_prune.anatomy import (
    Anatomy,
    Block,
    Site,
)
from lightning_prune.evidence import Feature, Gradients, Removal, measure
from lightning_prune.plan import Plan
from lightning_prune.selection import removed_count
from lightning_prune.sweep import collect
from tests.contract.vit import IMAGES, batches, registered
from tests.sweep.helpers import block_inputs, states_of, traces
from tests.tiny import tiny_classifier

Propagated = pytest.mark.parametrize("propagate", ["block", "layer", "none"])


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """The table is there for one test."""
    with registered():
        yield


def sites(model: nn.Module) -> list[Site]:
    return [site for block in Anatomy(model).blocks for site in block.sites]


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


def lowest_go(score: torch.Tensor, sparsity: float) -> torch.Tensor:
    """A mask by a sorted list; of equal ones the first go."""
    flat = score.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: (flat[i], i))
    gone = set(order[: removed_count(len(flat), sparsity)])
    return torch.tensor([i not in gone for i in range(len(flat))]).view(score.shape)


def assert_masked(model: nn.Module, plan: Plan, dense: nn.Module) -> None:
    """Zero just where the plan says; elsewhere as it was, unless the method corrected it."""
    weights, before = dict(model.named_parameters()), dict(dense.named_parameters())
    for name, weight in weights.items():
        if name not in plan.mask_names:
            assert torch.equal(weight, before[name]), name
        elif name in plan.corrected:
            assert torch.equal(weight != 0, plan.mask(name)), name
        else:
            assert torch.equal(weight, before[name] * plan.mask(name)), name


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


def loss_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Of the mean cross entropy over all images, by plain autograd."""
    model = copy.deepcopy(model).requires_grad_()
    F.cross_entropy(model(pixel_values=IMAGES["pixel_values"]).logits, IMAGES["labels"]).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("offload", [False, True], ids=["whole", "by block"])
@pytest.mark.parametrize("size", [1, 3])
def test_snip_compares_what_the_loss_feels(size: int, offload: bool) -> None:
    """|w·g| by plain autograd, of all blocks and the classifier together."""
    dense, model = tiny_classifier(), tiny_classifier()
    method = WeightSNIP(sparsity=0.37, keep_scores=True, head=True, offload=offload)
    plan, gradients = prune(model, method, batches(size)), loss_gradients(dense)
    for name in plan.mask_names:
        expected_OI = (dense.get_parameter(name).detach() * gradients[name]).abs()
        torch.testing.assert_close(plan.scores("weight", name), expected_OI, rtol=1e-3, atol=1e-6)
    score = torch.cat([plan.scores("weight", name).flatten() for name in plan.mask_names])
    keep = torch.cat([plan.mask(name).flatten() for name in plan.mask_names])
    assert torch.equal(keep, lowest_go(score, 0.37))
    assert "classifier.weight" in plan.mask_names
    assert_masked(model, plan, dense)


@pytest.mark.parametrize("modules", ["linear", "all"])
def test_features_are_those_of_each_image(modules: Any) -> None:
    """Norms of all outputs, image by image; the classifier's among those of all modules."""
    model, found = tiny_classifier(), dict[str, torch.Tensor]()
    states = states_of(model, batches())
    request = Gradients(objective=Feature(kind="frobenius", modules=modules))
    for _, evidence in collect(states, request, states.anatomy.blocks, "none"):
        found |= {name: one.first_OI for name, one in evidence.items()}
    copied, seen = copy.deepcopy(model).requires_grad_(), list[torch.Tensor]()

    def note(module: nn.Module, _: Any, output: Any) -> None:
        output = output if isinstance(output, torch.Tensor) else output[0]
        if module is not copied and output.requires_grad:
            seen.append(output)

    copied.vit.embeddings.requires_grad_(False)
    linears = [site.module for site in sites(copied)]
    for module in copied.modules() if modules == "all" else linears:
        module.register_forward_hook(note)
    copied(pixel_values=IMAGES["pixel_values"])
    (torch.stack([one.norm() for output in seen for one in output]).sum() / 4).backward()
    for name, product_OI in found.items():
        weight_OI = copied.get_parameter(name)
        expected_OI = (weight_OI * weight_OI.grad).detach()
        limit = 1e-5 * float(expected_OI.abs().max())
        torch.testing.assert_close(product_OI, expected_OI, rtol=1e-3, atol=limit)


def test_losses_need_labels() -> None:
    """Which are asked for before anything is changed."""
    model = tiny_classifier()
    before = copy.deepcopy(model.state_dict())
    unlabelled = [{"pixel_values": batch["pixel_values"]} for batch in batches()]
    with pytest.raises(ValueError, match=r"losses of images need labels \(B,\) in every batch"):
        prune(model, WeightSNIP(sparsity=0.5), unlabelled)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def taylor_by_hand(model: nn.Module, block: Block, kind: str, unit: int, mix: bool) -> float:
    """Σ |w g|, or Σ |w g - ½ w F w|, over all weights that a unit has."""
    gradients, alone = loss_gradients(model), []
    for b in range(4 if mix else 0):
        one = copy.deepcopy(model).requires_grad_()
        logits = one(pixel_values=IMAGES["pixel_values"][b : b + 1]).logits
        F.cross_entropy(logits, IMAGES["labels"][b : b + 1]).backward()
        alone.append({name: p.grad for name, p in one.named_parameters()})
    own = slice(8 * unit, 8 * unit + 8) if kind == "group" else slice(unit, unit + 1)
    paths = {"group": ("q_proj", "k_proj", "v_proj", "o_proj"), "neuron": ("fc1", "fc2")}[kind]
    total = 0.0
    for site in (s for s in block.sites if s.table.path.endswith(paths)):
        weight, name = site.module.weight.detach(), site.weight_name
        value = weight * gradients[name]
        if mix:
            fisher = torch.stack([one[name].square() for one in alone]).mean(dim=0)
            value = value - weight * fisher * weight / 2
        total += float((value[:, own] if site.table.columns else value[own]).abs().sum())
    return total


@pytest.mark.parametrize("mode", ["param_first", "param_mix"])
def test_taylor_scores_units_by_their_labels(mode: Any) -> None:
    """Heads and neurons, by the classes of the images, alone and together."""
    model = tiny_classifier()
    method = Taylor(ratio=0.25, mode=mode)
    states = states_of(model, batches())
    (request,) = method.requests()
    for block, evidence in collect(states, request, method.blocks(states.anatomy), "none"):
        scores = method.score(block, evidence)
        assert {kind: score.numel() for kind, score in scores.items()} == {"group": 4, "neuron": 24}
        for kind, unit in (("group", 0), ("group", 3), ("neuron", 5)):
            expected = taylor_by_hand(model, block, kind, unit, mode == "param_mix")
            assert float(scores[kind][unit]) == pytest.approx(expected, rel=2e-3)


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
