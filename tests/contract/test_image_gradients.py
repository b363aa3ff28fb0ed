"""Gradients of image classifiers: of the loss on their classes, and of features."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune import Taylor, WeightSNIP, prune
from lightning_prune.anatomy import Block
from lightning_prune.attribution import attnlrp
from lightning_prune.evidence import Feature, Gradients
from lightning_prune.sweep import collect
from tests.contract.images import assert_masked, loss_gradients, lowest_go, sites
from tests.contract.vit import IMAGES, batches
from tests.sweep.helpers import states_of
from tests.tiny import tiny_classifier

pytestmark = pytest.mark.usefixtures("images_known")


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


def test_images_have_relevance() -> None:
    """The rules stand on what layers are, not on what goes in: the same logits, other gradients."""
    model, pixels = tiny_classifier(), IMAGES["pixel_values"].clone().requires_grad_()

    def answer() -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(pixel_values=pixels).logits
        return logits, torch.autograd.grad(logits.amax(dim=-1).sum(), pixels)[0]

    expected, plain = answer()
    with attnlrp(model):
        logits, relevance = answer()
    assert torch.equal(logits, expected)
    assert not torch.allclose(relevance, plain, rtol=1e-2)
    assert torch.equal(answer()[1], plain)
