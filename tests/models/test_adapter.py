"""What the adapter trains, and how it is said in YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from peft.tuners.lora import LoraLayer

from lightning_prune import Magnitude, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.models import CausalLM, LoRA
from lightning_prune.models.recovery.ranks import whole_ranks
from lightning_prune.report.files import write
from lightning_prune.report.importance import Importance, importance_document
from lightning_prune.surgery import shrink
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, tiny_plan


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_by_default_every_linear_of_every_block_is_adapted_and_nothing_else_trained(model_type):
    """The targets come from the family's table, so fused and renamed projections are found."""
    model = tiny_model(model_type)
    linears = sum(
        isinstance(m, torch.nn.Linear) for n, m in model.named_modules() if "layers." in n
    )
    adapted = LoRA(r=2).attach(model)
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trainable) == 2 * linears
    assert all("lora_" in name for name in trainable)


def test_a_fresh_adapter_does_not_change_the_model():
    """Training starts from the pruned model's own function."""
    model, tokens = tiny_model("llama"), tiny_batch()
    before = model(tokens).logits
    torch.testing.assert_close(LoRA(r=2).attach(model)(tokens).logits, before)


def test_what_was_taken_out_of_a_block_gets_no_adapter() -> None:
    """Neither its attention nor its MLP; all that is added is trained, and merges."""
    model, tokens = tiny_model("opt"), tiny_batch()
    shrink(Anatomy(model), tiny_plan(model, group={0: []}, neuron={1: []}))
    adapted = LoRA(r=2).attach(model)
    adapted(tokens, labels=tokens).loss.backward()
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert all(adapted.get_parameter(name).grad is not None for name in trained)
    assert not any(".0.self_attn." in name or ".1.fc" in name for name in trained)
    assert len(trained) == 2 * (3 * 6 - 4 - 2)
    adapted.merge_and_unload(safe_merge=True)


def test_a_target_that_matches_nothing_is_an_error_even_beside_one_that_matches():
    """A typo must not silently leave a projection without its adapter."""
    lora = LoRA(target_modules=["q_proj", "w_proj"])
    with pytest.raises(ValueError, match="'w_proj', which matches no Linear.*self_attn.q_proj"):
        lora.attach(tiny_model("llama"))


@pytest.mark.parametrize("arguments", [{"r": 0}, {"dropout": 1.0}])
def test_impossible_settings_are_refused_at_once(arguments):
    """Before any model is loaded."""
    with pytest.raises(ValueError, match="LoRA"):
        LoRA(**arguments)


@pytest.mark.parametrize(
    ("said", "rank"),
    [
        ("null", None),
        ("none", None),
        ("lora", 8),
        ("qlora", 8),
        ("{class_path: QLoRA, init_args: {r: 4}}", 4),
        ("{class_path: LoRA, init_args: {r: 16}}", 16),
        ("{class_path: lightning_prune.models.LoRA, init_args: {r: 3}}", 3),
    ],
)
def test_an_adapter_is_said_in_yaml_by_word_or_by_class(said, rank):
    """`adapter: lora | none | null` and the class with its arguments."""
    parser = ArgumentParser()
    parser.add_class_arguments(CausalLM, "model")
    config = parser.parse_string(f"model: {{path: quickstart, adapter: {said}}}")
    adapter = parser.instantiate(config).model.adapter
    assert (adapter and adapter.r) == rank


def test_ranks_follow_the_importance_of_blocks(tmp_path: Path) -> None:
    """Their mean is r, all Linears of a block have the same, and the scale is that of r."""
    path = tmp_path / "importance.json"
    path.write_text(json.dumps({"values": {"0": 6.0, "1": 1.0, "2": 2.0}}))
    model = LoRA(r=6, alpha=12, importance=str(path)).attach(tiny_model("llama"))
    ranks: dict[str, set[int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            ranks.setdefault(name.partition("layers.")[2][0], set()).add(module.r["default"])
            assert module.scaling["default"] == pytest.approx(2)
    assert ranks == {"0": {12}, "1": {2}, "2": {4}}


def test_ranks_of_the_blocks_that_are_left_follow_the_dense_model_s_importance(
    tmp_path: Path,
) -> None:
    """A file that was measured before a block was taken out; written as the command writes it."""
    importance = Importance("tiny", "angular", "block", {0: 0.3, 1: 9.0, 2: 0.1})
    written = write(importance_document(importance), tmp_path)
    model = tiny_model("llama")
    plan = tiny_plan(model, block={1: []})
    prune(model, Magnitude(sparsity=0.5, plan=plan))
    adapted = LoRA(r=4, importance=written["importance.json"]).attach(model, plan)
    ranks = {
        name.partition("layers.")[2][0]: module.r["default"]
        for name, module in adapted.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert ranks == {"0": 6, "1": 2}


def test_importance_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Of another model, or without a block that matters."""
    path = tmp_path / "importance.json"
    path.write_text(json.dumps({"values": {"0": 6.0}}))
    with pytest.raises(ValueError, match="Was it made for another model"):
        LoRA(importance=str(path)).attach(tiny_model("llama"))
    path.write_text(json.dumps({"values": {"0": -1.0, "1": 0.0, "2": 0.0}}))
    with pytest.raises(ValueError, match="has an importance above 0"):
        LoRA(importance=str(path)).attach(tiny_model("llama"))


@pytest.mark.parametrize(
    ("wishes", "ranks"),
    [([8.0, 8.0], [8, 8]), ([2.5, 2.25, 3.25], [3, 2, 3]), ([0.1, 7.9], [1, 7]), ([0.2], [1])],
)
def test_ranks_are_whole_and_at_least_one(wishes: list[float], ranks: list[int]) -> None:
    """With the sum of the wishes where that is possible."""
    assert whole_ranks(wishes) == ranks


def test_no_targets_at_all_are_refused() -> None:
    """With the names that there are."""
    with pytest.raises(ValueError, match="target_modules is empty.*self_attn.q_proj"):
        LoRA(target_modules=[]).attach(tiny_model("llama"))


def test_adapters_stay_in_float32_beside_bfloat16_weights() -> None:
    """What `precision: bf16-true` does to a module leaves them out."""
    module = CausalLM("quickstart", adapter=LoRA(r=2))
    module.setup("fit")
    module.to(torch.bfloat16)
    types = {(p.requires_grad, p.dtype) for p in module.parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}
    assert torch.isfinite(module({"input_ids": torch.arange(8)[None]})).all()
