"""What the family of weight pruning has in common: which weights it takes, and with what care."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import ALPS, Magnitude, PerBlock, SparseGPT, Uniform, Wanda, WeightSNIP
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.scores.wanda import wanda_score
from lightning_prune.selection import keep_per_row
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.sweep.helpers import traces
from tests.tiny import tiny_model


def modules_of(plan: Plan) -> set[str]:
    return {name.removesuffix(".weight").rpartition(".")[2] for name in plan.mask_names}


# --- names ---


@pytest.mark.parametrize(
    ("settings", "pruned"),
    [
        ({"include": ["*.mlp.*"]}, {"gate_proj", "up_proj", "down_proj"}),
        ({"exclude": ["*.mlp.*", "*.o_proj"]}, {"q_proj", "k_proj", "v_proj"}),
        ({"include": ["*.mlp.*", "*.q_proj"], "exclude": ["*.up_proj"]}, None),
    ],
)
@pytest.mark.parametrize("cls", [Wanda, SparseGPT])
def test_names_choose_what_is_pruned(cls: Any, settings: Any, pruned: set[str] | None) -> None:
    """What matches an inclusion and no exclusion; the rest is as it was."""
    model = even_model("llama")
    before = state(model)
    plan = prune(model, cls(sparsity=0.5, propagate="layer", **settings), batches())
    assert modules_of(plan) == (pruned or {"q_proj", "gate_proj", "down_proj"})
    for name, tensor in model.state_dict().items():
        if name not in plan.mask_names:
            assert torch.equal(tensor, before[name]), name


def test_one_block_may_be_left_out_by_name() -> None:
    """It is run through, and the others are pruned."""
    model = even_model("llama")
    plan = prune(model, Wanda(sparsity=0.5, exclude=["model.layers.1.*"]), batches())
    assert {name.split(".")[2] for name in plan.mask_names} == {"0", "2"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"include": ["*.fc1"]}, r"include='\*.fc1' matches no Linear; names are like model.lay"),
        ({"exclude": ["mlp"]}, r"exclude='mlp' matches no Linear; .*\* stands for anything"),
        ({"exclude": ["*"]}, r"exclude=\['\*'\] leave no Linear to prune; name fewer"),
        ({"include": ["lm_head"]}, "include='lm_head' matches no Linear"),
        ({"layer_end": 1, "include": ["*.1.mlp.*"]}, "matches no Linear"),
    ],
)
def test_names_that_match_or_leave_nothing_are_refused(settings: Any, message: str) -> None:
    """Before calibration: there is none here."""
    with pytest.raises(ValueError, match=message):
        prune(even_model("llama"), Wanda(sparsity=0.5, **settings))


def test_widths_that_a_pattern_does_not_divide_are_excluded_by_name() -> None:
    """As the message that refuses them says."""
    with pytest.raises(ValueError, match=r"down_proj has 22.*exclude=\['\*.down_proj'\]"):
        prune(tiny_model("llama"), SparseGPT(pattern="2:4"), batches())
    method = SparseGPT(pattern="2:4", exclude=["*.down_proj"])
    plan = prune(tiny_model("llama"), method, batches())
    assert "down_proj" not in modules_of(plan)
    assert len(modules_of(plan)) == 6


def test_names_may_be_one_pattern() -> None:
    """A single string is one pattern, and not its letters."""
    model = even_model("llama")
    plan = prune(model, Magnitude(sparsity=0.5, include="*.mlp.*"))
    assert all(".mlp." in name for name in plan.mask_names)


# --- outside the blocks ---


@torch.no_grad()
def head_input(model: nn.Module) -> torch.Tensor:
    """What the output layer reads, over all calibration tokens (N, D)."""
    seen: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].flatten(0, -2))
    )
    for batch in batches():
        model(**batch, use_cache=False)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("propagate", ["block", "layer"])
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "opt"])
def test_the_head_is_pruned_by_what_it_reads(model_type: str, propagate: Any) -> None:
    """By Wanda on the output of the final norm, behind blocks that are pruned already.

    Every batch has its own way there, and nothing of it stays behind.
    """
    model = even_model(model_type)
    before = traces(model)
    dense_VD = model.get_output_embeddings().weight.detach().clone()
    plan = prune(model, Wanda(sparsity=0.5, head=True, propagate=propagate), batches())
    assert traces(model) == before
    norm_D = head_input(model).double().norm(dim=0).float()
    expected_VD = keep_per_row(wanda_score(dense_VD, norm_D), 0.5)
    assert torch.equal(plan.mask("lm_head.weight"), expected_VD)
    assert torch.equal(model.get_output_embeddings().weight, dense_VD * expected_VD)


@pytest.mark.parametrize("method", [SparseGPT, ALPS])
def test_the_head_alone_is_corrected_too(method: Any) -> None:
    """Included by its name; no block is changed."""
    model = even_model("llama")
    before = state(model)
    plan = prune(model, method(pattern="2:4", head=True, include=["lm_head"]), batches())
    assert plan.mask_names == list(plan.corrected) == ["lm_head.weight"]
    changed = [n for n, t in model.state_dict().items() if not torch.equal(t, before[n])]
    assert changed == ["lm_head.weight"]


@pytest.mark.parametrize("settings", [{"sparsity": 0.5}, {"pattern": "2:4"}], ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_lose_the_smallest_of_every_token(settings: Any, tied: bool) -> None:
    """Before anything runs, so that the blocks see it; a tied head is the same tensor still."""
    model = even_model("llama", tie_word_embeddings=tied)
    table_VD = model.get_input_embeddings().weight.detach().clone()
    plan = prune(model, Wanda(**settings, embeddings=True), batches())
    weight_VD = model.get_input_embeddings().weight
    keep_VD = plan.mask("model.embed_tokens.weight")
    assert (keep_VD.sum(dim=1) == 16).all()
    assert torch.equal(weight_VD, table_VD * keep_VD)
    assert (model.get_output_embeddings().weight is weight_VD) == tied
    if "sparsity" in settings:
        gone, kept = table_VD.abs().masked_fill(keep_VD, 0), table_VD.abs().masked_fill(~keep_VD, 9)
        assert (gone.amax(dim=1) <= kept.amin(dim=1)).all()


def test_blocks_see_the_pruned_embeddings() -> None:
    """The first norms are those of what is left."""
    with_table = prune(even_model("llama"), _kept(embeddings=True), batches())
    without = prune(even_model("llama"), _kept(), batches())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(with_table.scores("weight", name), without.scores("weight", name))


def _kept(**settings: Any) -> Wanda:
    return Wanda(sparsity=0.5, keep_scores=True, **settings)


def test_a_tied_head_is_refused() -> None:
    """It is the input embeddings; embeddings=True says so."""
    model = even_model("llama", tie_word_embeddings=True)
    with pytest.raises(ValueError, match="shares its weights .* Say embeddings=True instead"):
        prune(model, Wanda(sparsity=0.5, head=True), batches())


@pytest.mark.parametrize(
    ("data", "allocation"), [([], Uniform()), (batches(), PerBlock(fractions=[0.1, 0.1, 0.1]))]
)
def test_embeddings_come_back_when_nothing_is_pruned(data: Any, allocation: Any) -> None:
    """They are masked before the blocks, and an error right behind that changes nothing."""
    model = even_model("llama")
    before = state(model)
    with pytest.raises(ValueError, match="no calibration tokens|fractions of PerBlock"):
        prune(model, Wanda(sparsity=0.5, embeddings=True, allocation=allocation), data)
    assert_same_state(model, before)


def test_embeddings_come_back_when_no_score_can_be_made() -> None:
    """Of a method that looks at the whole model before it decides."""
    model = even_model("llama")
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight.fill_(torch.inf)
    before = state(model)
    with pytest.raises(ValueError, match="are not finite"):
        prune(model, WeightSNIP(sparsity=0.5, embeddings=True), batches())
    assert_same_state(model, before)


# --- numbers ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cls", [Wanda, SparseGPT, ALPS])
def test_half_precision_models_have_statistics_in_fp32(cls: Any, dtype: torch.dtype) -> None:
    """Activations whose squares overflow fp16 are no harm, and the model keeps its type.

    Powers of two change no rounding: masks are those of the model with activations 512 times
    smaller.
    """
    plans = []
    for scale in (1.0, 512.0):
        model = even_model("llama", dtype=dtype)
        with torch.no_grad():
            for block in model.model.layers:
                block.input_layernorm.weight.mul_(scale)
                for name in ("q_proj", "k_proj", "v_proj"):
                    block.self_attn.get_submodule(name).weight.div_(scale)
        plan = prune(model, cls(sparsity=0.5, keep_scores=True), batches())
        plans.append(plan)
        for name in plan.mask_names:
            assert plan.scores("weight", name).dtype == torch.float32
            weight_OI = model.get_parameter(name)
            assert weight_OI.dtype == dtype
            assert weight_OI.isfinite().all()
    if dtype == torch.bfloat16:  # in fp16 the smaller weights are subnormal, and rounded
        for name in plans[0].mask_names:
            assert torch.equal(plans[0].mask(name), plans[1].mask(name)), name


@pytest.mark.parametrize("cls", [Magnitude, Wanda, SparseGPT])
def test_biases_are_left_alone(cls: Any) -> None:
    """Qwen2 has them at q, k and v."""
    model = even_model("qwen2")
    before = state(model)
    prune(model, cls(sparsity=0.5), batches())
    biases = [name for name in before if name.endswith(".bias")]
    assert len(biases) == 9
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in biases)
