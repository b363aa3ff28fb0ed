"""Uneven folders in processes that do not know lightning_prune."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_prune.anatomy import Anatomy
from lightning_prune.export.hf import save
from lightning_prune.surgery import add_biases, shrink
from tests.checkpoints.models import tokenizer
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, tiny_plan, uneven_plan

STRANGER = Path(__file__).with_name("stranger.py")
PARTS = ("llama", "gemma3_text", "phi3", "opt")
NAMES = ("llama-even", *MODEL_TYPES, *(f"{name}-parts" for name in PARTS))
OTHER_PYTHON = os.environ.get("LIGHTNING_PRUNE_PYTHON_457")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """One uneven model of each family; and some without attention, without MLP, with biases."""
    pruned = {name: tiny_model(name) for name in MODEL_TYPES}
    for model in pruned.values():
        shrink(Anatomy(model), uneven_plan(model))
    pruned["llama-even"] = tiny_model("llama")
    for name in PARTS:
        model = pruned[f"{name}-parts"] = tiny_model(name)
        add_biases(Anatomy(model), ["mlp.down_proj"])
        for _, parameter in model.named_parameters():
            if parameter.ndim == 1 and not parameter.any():
                parameter.data.normal_(generator=torch.Generator().manual_seed(0))
        shrink(Anatomy(model), tiny_plan(model, group={0: []}, neuron={1: []}))
    return pruned


@pytest.fixture(scope="module")
def look(
    models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, dict[str, torch.Tensor]]]:
    """Saves every model, and tells what an interpreter sees in the folders."""
    root = tmp_path_factory.mktemp("uneven")
    save_file({"ids": tiny_batch()}, root / "ids.safetensors")
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<|x|>"]})
    for name, model in models.items():
        plan = uneven_plan(tiny_model(name.partition("-")[0]))
        save(model, root / name, plan, words if name.startswith("llama") else None)

    def run(python: str) -> dict[str, dict[str, torch.Tensor]]:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        modules = tmp_path_factory.mktemp("modules")
        environment |= {"HF_MODULES_CACHE": str(modules), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [python, str(STRANGER)],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Reading global config value" not in done.stderr
        return {name: load_file(root / f"{name}.seen.safetensors") for name in models}

    return run


@pytest.fixture(scope="module")
def seen(look: Callable[[str], Any]) -> dict[str, dict[str, torch.Tensor]]:
    return look(sys.executable)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", NAMES)
def test_a_stranger_sees_the_same_logits(
    model_type: str, models: dict[str, Any], seen: dict[str, dict[str, torch.Tensor]]
) -> None:
    """`from_pretrained(..., trust_remote_code=True)` gives the model that was saved."""
    model, got = models[model_type], seen[model_type]
    with torch.no_grad():
        torch.testing.assert_close(got["logits"], model(tiny_batch()).logits)
        torch.testing.assert_close(got["pickled"], got["logits"])
        hidden = model.base_model(tiny_batch()).last_hidden_state
        torch.testing.assert_close(got["hidden"], hidden)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", NAMES)
def test_a_stranger_generates_the_same_tokens_with_and_without_cache(
    model_type: str, models: dict[str, Any], seen: dict[str, dict[str, torch.Tensor]]
) -> None:
    """The key/value cache copes with blocks of different head counts."""
    greedy = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    here = models[model_type].generate(tiny_batch()[:, :5], **greedy)
    assert here.shape == (2, 13)
    assert torch.equal(seen[model_type]["cached"], here)
    assert torch.equal(seen[model_type]["uncached"], here)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "llama-even", "llama-parts"])
def test_a_stranger_gets_the_tokenizer_too(
    model_type: str, seen: dict[str, dict[str, torch.Tensor]]
) -> None:
    """Special tokens that were added are one token each."""
    assert seen[model_type]["tokens"].tolist() == [3, 64, 1]


@pytest.mark.slow
@pytest.mark.skipif(
    OTHER_PYTHON is None,
    reason="set LIGHTNING_PRUNE_PYTHON_457 to an interpreter with transformers 4.57.6",
)
def test_transformers_4_57_sees_the_same(
    models: dict[str, Any], look: Callable[[str], dict[str, dict[str, torch.Tensor]]]
) -> None:
    """The folders load where `per_layer_config` is not known, with the same results."""
    assert OTHER_PYTHON is not None
    seen = look(OTHER_PYTHON)
    for name, model in models.items():
        # Gemma 2's soft-capped attention itself differs slightly between the two versions.
        tolerance = {"rtol": 1e-3, "atol": 2e-3} if name == "gemma2" else {}
        with torch.no_grad():
            torch.testing.assert_close(
                seen[name]["logits"], model(tiny_batch()).logits, **tolerance
            )
        assert torch.equal(seen[name]["cached"], seen[name]["uncached"])
        if name != "gemma2":
            greedy = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
            assert torch.equal(seen[name]["cached"], model.generate(tiny_batch()[:, :5], **greedy))
    assert seen["llama"]["tokens"].tolist() == [3, 64, 1]
