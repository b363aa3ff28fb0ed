"""Model cards, and saved folders written as other ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from lightning_prune.checkpoints.load import load
from lightning_prune.evaluation import TextPerplexity
from lightning_prune.export.hf import save, to_hf
from lightning_prune.models import CausalLM
from lightning_prune.plan import Plan, joined
from lightning_prune.report.report import Report
from tests.checkpoints.models import assert_same_model, even, uneven
from tests.report.example import example_report, full_report
from tests.tiny import MODEL_TYPES, tiny_model, tiny_plan


def test_the_card_of_an_even_model_asks_for_no_remote_code(tmp_path: Path) -> None:
    """And names no base model that is not known, nor a path on somebody's disk."""
    model = even()
    model.config._name_or_path = str(tmp_path)
    folder = save(model, tmp_path / "model")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "trust_remote_code" not in card
    assert "base_model" not in card
    assert str(tmp_path) not in card + (folder / "config.json").read_text(encoding="utf-8")


def test_the_card_names_methods_and_figures(tmp_path: Path) -> None:
    """Every method that took part, what is left, and what was measured of it."""
    first = tiny_plan(tiny_model("llama"), neuron={0: [1, 2]})
    first.provenance |= {"model": "quickstart", "method": "A", "arguments": {"plan": str(tmp_path)}}
    second = Plan({"model": "quickstart", "method": "B", "arguments": {"x": 0.5, "y": None}})
    folder = save(
        even(), tmp_path / "model", plan=joined(first, second), report=example_report(model="tiny")
    )
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "A pruned version of `quickstart`." in card
    assert "base_model" not in card, "only the hub's names belong there"
    assert "- Method: `A()`\n- Method: `B(x=0.5, y=None)`\n" in card
    assert "| dense | 36.21 | 912,345 | 912,345 |" in card
    assert "21.9% of the weights were removed or set to zero." in card
    assert Report.from_json((folder / "report.json").read_text(encoding="utf-8")).files == {}


def test_the_card_s_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    """Figures of the last stage as results; a text on somebody's disk without its path."""
    report = full_report()
    report.evaluations["recovered"].perplexities.append(
        TextPerplexity(str(tmp_path), "test", 64, 3, 9.5)
    )
    plan = Plan({"model": "some-org/some-model", "method": "A", "arguments": {}})
    folder = save(even(), tmp_path / "model", plan=plan, report=report)
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.base_model == "some-org/some-model"
    assert card.data.tags == ["pruned", "lightning_prune"]
    assert card.data.license is None
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert results == {
        ("wikitext2", "perplexity"): 6.13,
        ("a local text", "perplexity"): 9.5,
        ("boolq", "acc"): 0.5,
        ("rte", "acc"): 0.5,
    }
    assert "| boolq | acc | 100 | 0.5000 ± 0.0100 |" in card.text
    assert str(tmp_path) not in str(card)


def test_a_card_does_not_take_a_folder_for_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is written again."""
    monkeypatch.chdir(tmp_path)
    save(even(), "models/mine")
    module = CausalLM("models/mine")
    module.load()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = save(module.base, "saved")
    assert "models/mine" not in (folder / "README.md").read_text(encoding="utf-8")


def test_figures_of_another_dtype_are_said_to_be_such(tmp_path: Path) -> None:
    """The report goes with the model, and was not measured again."""
    report = replace(full_report(), settings={"dtype": "float32"})
    folder = save(even(), tmp_path / "model", report=report)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "measured in" not in card.lower()
    card = (to_hf(folder, tmp_path / "half", "bfloat16") / "README.md").read_text(encoding="utf-8")
    assert "It was measured in float32, and these weights are bfloat16." in card


@pytest.mark.parametrize("make", [even, uneven])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_folder_of_another_type_is_what_was_loaded_as_such(
    model_type: str, make: Any, tmp_path: Path
) -> None:
    """In shards or not, tied or not: as if it had been loaded in that type and saved."""
    folder = save(make(model_type, tie_word_embeddings=True), tmp_path / "model")
    half = load(to_hf(folder, tmp_path / "half", "bfloat16", "20KB"))
    assert half.config.dtype == half.dtype == torch.bfloat16
    assert_same_model(load(folder, torch.bfloat16), half)
    assert_same_model(load(folder), load(to_hf(folder, tmp_path / "same")))
