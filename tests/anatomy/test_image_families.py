"""The tables of image classifiers, against small random models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, family_of
from lightning_prune.evaluation import classify
from tests.image_models import FAMILIES, STAGED, image_batches, image_model

Family = pytest.mark.parametrize("family", FAMILIES)


@Family
def test_every_linear_of_a_block_is_a_site(family: str) -> None:
    """And the classifier is the head; what stands between stages, or behind, is no block's."""
    anatomy = Anatomy(image_model(family))
    for block in anatomy.blocks:
        linears = [m for m in block.module.modules() if isinstance(m, nn.Linear)]
        assert sorted(map(id, linears)) == sorted(id(site.module) for site in block.sites)
    assert anatomy.head.sites[0].name == "classifier"
    inside = {id(m) for block in anatomy.blocks for m in block.module.modules()}
    outside = {id(m) for module in anatomy.outside for m in module.modules()}
    weights = {
        id(m)
        for m in anatomy.model.modules()
        if next(m.parameters(recurse=False), None) is not None
    }
    assert not inside & outside
    assert weights <= inside | outside


@Family
def test_sites_that_share_an_input_read_the_same_tensor(family: str) -> None:
    """In the order in which the table names them."""
    model, seen = image_model(family), dict[str, Any]()
    for block in Anatomy(model).blocks:
        for site in block.sites:

            def note(_: nn.Module, args: tuple[Any, ...], name: str = site.name) -> None:
                seen[name] = args[0]

            site.module.register_forward_pre_hook(note)
    model(pixel_values=image_batches()[0]["pixel_values"])
    order = [site.name for block in Anatomy(model).blocks for site in block.sites]
    assert list(seen) == order
    for block in Anatomy(model).blocks:
        for sites in block.inputs().values():
            assert len({id(seen[site.name]) for site in sites}) == 1


@Family
def test_block_by_block_a_classifier_says_what_it_says_as_a_whole(family: str) -> None:
    """Also where the model does something of its own between two stages."""
    model, batches = image_model(family), image_batches()
    found = classify(model, batches)
    with torch.no_grad():
        logits = torch.cat([model(pixel_values=b["pixel_values"]).logits for b in batches])
    labels = torch.cat([batch["labels"] for batch in batches])
    torch.testing.assert_close(
        found.loss_N, nn.functional.cross_entropy(logits, labels, reduction="none")
    )
    assert torch.equal(found.said_N, logits.argmax(dim=-1))
    five = [
        int(label) in row.topk(5).indices.tolist()
        for row, label in zip(logits, labels, strict=True)
    ]
    assert found.top5 == pytest.approx(sum(five) / len(five))
    assert found.accuracy == pytest.approx(float((found.said_N == labels).double().mean()))


@pytest.mark.parametrize("family", STAGED)
def test_blocks_of_stages_differ_in_width(family: str) -> None:
    """Each is described as it is."""
    anatomy = Anatomy(image_model(family))
    assert anatomy.family.staged
    assert len({block.width for block in anatomy.blocks}) == 2
    with pytest.raises(ValueError, match="stand in stages of different widths"):
        anatomy.check_removable()


def test_a_model_that_is_laid_out_otherwise_is_refused() -> None:
    """DINOv2's largest has gated MLPs."""
    from transformers import Dinov2Config, Dinov2ForImageClassification

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, use_swiglu_ffn=True
    )
    with pytest.raises(ValueError, match=r"is not laid out as dinov2 models.*mlp\.fc1"):
        Anatomy(Dinov2ForImageClassification(config))


def test_heads_that_have_a_column_of_a_table_are_no_units() -> None:
    """BEiT's and Swin's know where they are by such a table; they can be masked."""
    for family in ("beit", "swin"):
        assert {block.units("group") for block in Anatomy(image_model(family)).blocks} == {0}
    assert not family_of("llama").staged
