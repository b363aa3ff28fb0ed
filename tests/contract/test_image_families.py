"""Every family of image classifiers under the methods, as they are for language models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import (
    CFSP,
    FLAP,
    SNIP,
    Bias,
    BlockFit,
    DropBlocks,
    LeastSquares,
    Magnitude,
    MagnitudeSP,
    Relevance,
    ResidualFit,
    SparseGPT,
    StructuredOBS,
    Taylor,
    Wanda,
    WandaSP,
    WeightRelevance,
    WeightSNIP,
    attribute,
    load,
    prune,
    save,
)
from lightning_prune.anatomy import Anatomy
from tests.contract.images import assert_masked, lowest_go, sites
from tests.contract.masked import masked
from tests.image_models import FAMILIES, STAGED, image_batches, image_model

Family = pytest.mark.parametrize("family", FAMILIES)
PIXELS = torch.cat([batch["pixel_values"] for batch in image_batches()])


@torch.no_grad()
def squares(model: nn.Module) -> dict[str, torch.Tensor]:
    """Sums of squares of every site's input, by hooks over the whole model."""
    found: dict[str, torch.Tensor] = {}
    handles = []
    for site in sites(model):

        def note(_: nn.Module, args: tuple[Any, ...], name: str = site.name) -> None:
            found[name] = args[0].flatten(0, -2).double().square().sum(dim=0)

        handles.append(site.module.register_forward_pre_hook(note))
    model(pixel_values=PIXELS)
    for handle in handles:
        handle.remove()
    return found


@Family
@pytest.mark.parametrize("propagate", ["none", "block"])
def test_wanda_removes_by_what_each_layer_reads(family: str, propagate: Any) -> None:
    """Scores by hand, of the dense model or behind pruned blocks; exactly half of each row goes."""
    dense, model = image_model(family), image_model(family)
    method = Wanda(sparsity=0.5, propagate=propagate, keep_scores=True)
    plan, seen = prune(model, method, image_batches()), copy.deepcopy(dense)
    for block in Anatomy(seen).blocks:
        found = squares(seen)
        for site in block.sites:
            weight_OI = dense.get_parameter(site.weight_name).detach().abs()
            expected_OI = weight_OI * found[site.name].sqrt().float()
            score_OI = plan.scores("weight", site.weight_name)
            scale = expected_OI.norm() / score_OI.norm()  # a factor changes no order
            torch.testing.assert_close(score_OI * scale, expected_OI, rtol=2e-5, atol=1e-6)
            keep_OI = torch.stack([lowest_go(row, 0.5) for row in score_OI])
            assert torch.equal(plan.mask(site.weight_name), keep_OI)
        for site in block.sites if propagate == "block" else ():
            site.module.weight.data.mul_(plan.mask(site.weight_name))
    assert_masked(model, plan, dense)


@Family
@pytest.mark.parametrize(
    "method",
    [
        Magnitude(sparsity=0.5, head=True),
        Wanda(sparsity=0.5, propagate="layer"),
        Wanda(sparsity=0.5, scope="matrix"),
        SparseGPT(pattern="2:4"),
        ResidualFit(sparsity=0.5),
        WeightSNIP(sparsity=0.5, offload=True),
        WeightRelevance(sparsity=0.5),
    ],
    ids=repr,
)
def test_weights_are_zeroed(family: str, method: Any) -> None:
    """Just those of the plan, by every way of looking at the calibration images."""
    dense, model = image_model(family), image_model(family)
    plan = prune(model, method, image_batches())
    assert plan.sparsity() == pytest.approx(0.5, abs=0.02)
    assert_masked(model, plan, dense)


@Family
@pytest.mark.parametrize(
    "method",
    [
        Taylor(ratio=0.25),
        SNIP(ratio=0.25),
        FLAP(ratio=0.25, repair=Bias()),
        StructuredOBS(ratio=0.25),
        MagnitudeSP(ratio=0.25, attention=False),
        WandaSP(ratio=0.25, repair=LeastSquares()),
        Relevance(ratio=0.25),
    ],
    ids=repr,
)
def test_units_are_cut_and_the_folder_loads_again(family: str, method: Any, tmp_path: Path) -> None:
    """The cut model computes what the masked one does; saved and loaded, bit by bit the same."""
    dense, model = image_model(family), image_model(family)
    plan = prune(model, method, image_batches())
    before, after = (sum(p.numel() for p in one.parameters()) for one in (dense, model))
    assert after < before
    with torch.no_grad():
        logits = model(pixel_values=PIXELS).logits
        if not plan.corrected:
            expected = masked(dense, model, plan)(pixel_values=PIXELS).logits
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=2e-5)
        again = load(save(model, tmp_path / "cut", plan))
        assert type(again) is type(model)
        assert torch.equal(again(pixel_values=PIXELS).logits, logits)


@pytest.mark.parametrize(
    ("family", "stock"),
    [
        ("vit", True),
        ("deit", True),
        ("beit", True),
        ("dinov2", False),
        ("swin", False),
        ("convnext", False),
    ],
)
def test_an_even_cut_is_a_stock_model_where_its_config_says_widths(
    family: str, stock: bool
) -> None:
    """DINOv2, Swin and ConvNeXt have a ratio, or nothing, in place of a width."""
    model = image_model(family)
    kind = type(model)
    prune(model, MagnitudeSP(ratio=0.25, attention=False), image_batches())
    assert (type(model) is kind) is stock


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("method", [DropBlocks(count=1), CFSP(ratio=0.25)], ids=repr)
def test_blocks_of_stages_cannot_be_left_out(family: str, method: Any) -> None:
    """Nor is there an importance of what changes the width; nothing is changed then."""
    model = image_model(family)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="stand in stages of different widths"):
        prune(model, method, image_batches())
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


@Family
def test_neurons_have_attributions(family: str) -> None:
    """What reads a neuron, times the gradient of the class that the model names, added up."""
    model, found = (
        image_model(family),
        attribute(image_model(family), image_batches(), by="gradient"),
    )
    copied = copy.deepcopy(model).requires_grad_()
    copied(pixel_values=PIXELS).logits.amax(dim=-1).mean().backward()
    readers = [
        s for block in Anatomy(copied).blocks for s in block.sites if s.table.columns == "neuron"
    ]
    assert len(found.values) == len(readers)
    values = [
        found.values[name] for name in sorted(found.values)
    ]  # made from the last to the first
    for value_U, site in zip(values, readers, strict=True):
        weight_OI = site.module.weight
        assert weight_OI.grad is not None
        expected_U = (weight_OI * weight_OI.grad).detach().sum(dim=0)
        limit = 1e-4 * float(expected_U.abs().max())
        torch.testing.assert_close(value_U.float(), expected_U, rtol=1e-3, atol=limit)


@Family
def test_what_is_left_learns_what_the_dense_model_answers(family: str) -> None:
    """Also where blocks differ in width and something stands between them."""
    model, fit = image_model(family), BlockFit(steps=8, target="logits", rate=1e-3)
    plan = prune(model, Wanda(sparsity=0.5, block_fit=fit), image_batches())
    note = plan.provenance["block_fit"][0]
    assert note["blocks"] == list(range(len(Anatomy(model).blocks)))
    assert note["after"] < note["before"]
