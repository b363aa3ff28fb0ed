"""Every family's table, checked against a small random model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import FAMILIES, Anatomy
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

KINDS = ("group", "neuron")


@pytest.fixture(params=MODEL_TYPES)
def anatomy(request: pytest.FixtureRequest) -> Anatomy:
    return Anatomy(tiny_model(request.param))


def test_every_table_has_a_tiny_model() -> None:
    """A family without a tiny model would escape these tests."""
    of_text = [family for family in FAMILIES if family.task.judged_by == "perplexity"]
    assert {name for family in of_text for name in family.model_types} == set(MODEL_TYPES)
    from tests.image_models import FAMILIES as IMAGE_FAMILIES  # skipped without images

    others = {name for family in FAMILIES for name in family.model_types} - set(MODEL_TYPES)
    assert others == set(IMAGE_FAMILIES)


def test_the_table_names_every_linear_of_a_block(anatomy: Anatomy) -> None:
    """No Linear is forgotten, and none named twice."""
    for block in anatomy.blocks:
        linears = [m for m in block.module.modules() if isinstance(m, nn.Linear)]
        assert sorted(map(id, linears)) == sorted(id(site.module) for site in block.sites)


def test_weight_names_are_those_of_the_state_dict(anatomy: Anatomy) -> None:
    """A site's weight is found in the state dict under its name."""
    state = anatomy.model.state_dict()
    for block in anatomy.blocks:
        for site in block.sites:
            assert state[site.weight_name].data_ptr() == site.module.weight.data_ptr()


def test_counts_are_those_of_the_config(anatomy: Anatomy) -> None:
    """Shapes and config agree on heads, key/value heads and width."""
    config, family = anatomy.model.config, anatomy.family
    for block in anatomy.blocks:
        assert block.heads == getattr(config, family.heads_key)
        assert block.kv_heads == getattr(config, family.kv_heads_key or family.heads_key)
        assert block.width == getattr(config, family.width_key)
        assert block.head_dim == (6 if family.stores_head_dim else 4)


def test_members_partition_rows_and_columns(anatomy: Anatomy) -> None:
    """Every row or column with a role belongs to exactly one unit, and no other does."""
    for block in anatomy.blocks:
        found: dict[tuple[str, int], list[int]] = {}
        for kind in KINDS:
            for member in block.members(kind):
                features = member.features(torch.arange(block.units(kind)))
                found.setdefault((member.site.name, member.axis), []).extend(features.tolist())
        for site in block.sites:
            for axis, roles in ((0, site.table.rows), (1, site.table.columns)):
                size = site.module.weight.shape[axis] if roles else 0
                assert sorted(found.get((site.name, axis), [])) == list(range(size))


def test_gather_puts_the_features_of_a_unit_together(anatomy: Anatomy) -> None:
    """Entry u of what `gather` gives holds just the features of unit u."""
    block = anatomy.blocks[0]
    for kind in KINDS:
        for member in block.members(kind):
            weight_OI = member.site.module.weight.detach()
            gathered = member.gather(weight_OI, block.units(kind))
            for unit in (0, block.units(kind) - 1):
                part = weight_OI.index_select(member.axis, member.features(torch.tensor([unit])))
                part = part if member.axis == 0 else part.mT
                torch.testing.assert_close(gathered[unit], part, rtol=0, atol=0)


def test_inputs_are_in_the_order_of_execution_and_truly_shared(anatomy: Anatomy) -> None:
    """Sites run in the order given, and share an input exactly if the table says so."""
    names = {site.module: site.name for block in anatomy.blocks for site in block.sites}
    ran: list[str] = []
    read: dict[str, torch.Tensor] = {}

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        ran.append(names[module])
        read[names[module]] = args[0]

    for module in names:
        module.register_forward_pre_hook(note)
    with torch.no_grad():
        anatomy.model(tiny_batch())

    groups = [sites for block in anatomy.blocks for sites in block.inputs().values()]
    assert ran == [site.name for sites in groups for site in sites]
    inputs = [{id(read[site.name]) for site in sites} for sites in groups]
    assert all(len(ids) == 1 for ids in inputs)
    assert len(set.union(*inputs)) == len(groups)


def test_blocks_and_outside_hold_every_parameter(anatomy: Anatomy) -> None:
    """Nothing of the model is forgotten, and no block counts as outside."""
    outside = {id(p) for module in anatomy.outside for p in module.parameters()}
    inside = {id(p) for block in anatomy.blocks for p in block.module.parameters()}
    assert outside.isdisjoint(inside)
    assert outside | inside == {id(p) for p in anatomy.model.parameters()}


def test_norms_behind_the_layers_are_known() -> None:
    """OPT-350m has them: what a layer gives is not what the residual stream gets."""
    for before in (True, False):
        model = tiny_model("opt", do_layer_norm_before=before)
        adds = [site.table.adds for block in Anatomy(model).blocks for site in block.sites]
        assert any(adds) == before


def test_a_model_with_adapters_is_refused() -> None:
    """A model wrapped by peft must be merged before it is pruned."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(tiny_model("llama"), config)
    with pytest.raises(ValueError, match="merge them first|before adapters"):
        Anatomy(wrapped)
    with pytest.raises(ValueError, match="merge its adapter first"):
        Anatomy(wrapped.get_base_model())


def test_a_base_model_is_refused() -> None:
    """What has no head is no causal LM."""
    with pytest.raises(
        ValueError,
        match=r"LlamaModel is not laid out as llama models .*'model\.layers', each with .*\. Pass "
        r"what AutoModelForCausalLM.from_pretrained gives",
    ):
        Anatomy(tiny_model("llama").base_model)


@pytest.mark.parametrize("wrapper", [nn.DataParallel])
def test_a_wrapped_model_is_refused(wrapper: type[nn.Module]) -> None:
    """With what to pass in its place."""
    with pytest.raises(ValueError, match=r"DataParallel is a wrapper; pass .* model.module"):
        Anatomy(wrapper(tiny_model("llama")))


@pytest.mark.parametrize("module", [nn.Linear(2, 2), nn.Module()], ids=repr)
def test_what_is_no_hugging_face_model_is_refused(module: nn.Module) -> None:
    """It has no config; and the message says how it could have one."""
    with pytest.raises(ValueError, match=r"no config with a model_type.*register_family"):
        Anatomy(module)


def test_the_head_is_one_more_block_behind_the_last(anatomy: Anatomy) -> None:
    """With one site, and the name that the state dict has."""
    head = anatomy.head
    assert head.index == len(anatomy.blocks)
    assert [site.name for site in head.sites] == ["lm_head"]
    assert anatomy.model.get_output_embeddings() is head.module is head.sites[0].module
    assert head.sites[0].weight_name in anatomy.model.state_dict()
