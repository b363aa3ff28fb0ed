"""Pruning in rounds inside a Trainer: it is saved, resumed and reported as other methods are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import FLAP, CausalLM, Progressive, Wanda, prune
from lightning_prune.callbacks import progressive
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.lightning.runs import make_data, make_trainer


def fit(root: Path, model_folder: Path, text: Path, method: Progressive) -> CausalLM:
    module = CausalLM(str(model_folder), adapter="none")
    make_trainer(root, method, steps=1).fit(module, datamodule=make_data(text))
    return module


def test_it_runs_before_training_and_is_found_again(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start applies the saved plan, recovered weights included, and prunes nothing."""

    def method() -> Progressive:
        return Progressive(
            method=FLAP(ratio=0.5),
            rounds=2,
            max_increase=100.0,
            recover_steps=2,
            learning_rate=1e-3,
        )

    first = fit(tmp_path, model_folder, text_file, method())
    assert first.plan is not None
    rounds = first.plan.provenance["rounds"]
    assert [one["number"] for one in rounds] == [1, 2]
    assert first.plan.provenance["method"] == "Progressive"
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["provenance"]["rounds"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it was pruned again")

    monkeypatch.setattr(progressive, "prune_in_rounds", refuse)
    second = fit(tmp_path, model_folder, text_file, method())
    assert_same_state(second.base, state(first.base))
    other = Progressive(method=FLAP(ratio=0.5), rounds=2, max_increase=90.0)
    with pytest.raises(AssertionError, match="again"):  # another gate is another run
        fit(tmp_path, model_folder, text_file, other)


def test_it_is_configured_in_yaml(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method inside by its class_path."""
    from lightning_prune.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        f"""
model: {{path: {model_folder}}}
data: {{source: {text_file}, nsamples: 8, length: 32}}
trainer:
  accelerator: cpu
  enable_progress_bar: false
  default_root_dir: run
  callbacks:
    - class_path: Progressive
      init_args:
        rounds: 2
        method: {{class_path: FLAP, init_args: {{ratio: 0.4}}}}
"""
    )
    main(["prune", "--config", "run.yaml"])
    saved = json.loads((tmp_path / "run" / "plan" / "plan.json").read_text())["provenance"]
    assert saved["method"] == "Progressive"
    assert saved["arguments"]["method"] == "FLAP(ratio=0.4)"


def test_a_saved_plan_is_applied(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    """As with every other method."""
    first = fit(
        tmp_path / "a", model_folder, text_file, Progressive(method=FLAP(ratio=0.5), rounds=2)
    )
    again = Progressive(method=FLAP(ratio=0.5), plan=tmp_path / "a" / "plan")
    second = fit(tmp_path / "b", model_folder, text_file, again)
    torch.testing.assert_close(second.base.state_dict(), first.base.state_dict())


def test_it_needs_a_trainer() -> None:
    """`prune` takes one method in one go, and says what to use."""
    with pytest.raises(ValueError, match="prune_in_rounds"):
        prune(even_model("llama"), Progressive(method=FLAP(ratio=0.5)), batches())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": Wanda(sparsity=0.5)}, "method=Wanda.* is not allowed; .*the class UnitPruning"),
        ({"rounds": 0}, "rounds=0 is not allowed; it is 1 or more"),
        ({"recover_steps": -1}, "recover_steps=-1 is not allowed"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 is not allowed; it is above 0"),
        ({"layer_start": 1}, "layer_start=1 is not allowed; it is an argument of the method"),
        ({"max_increase": 0.9}, "max_increase"),
        ({"on_gate": "back"}, "on_gate='back' .*'rollback', 'stop'"),
    ],
)
def test_mistakes_are_refused_by_the_constructor(arguments: dict[str, Any], match: str) -> None:
    """One line each."""
    with pytest.raises(ValueError, match=match):
        Progressive(**({"method": FLAP(ratio=0.5)} | arguments))
