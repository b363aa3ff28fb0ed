"""Teachers that do not fit are refused before anything is pruned."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

import lightning_prune
from lightning_prune import CausalLM, Distillation, DropBlocks
from tests.lightning.runs import make_data, make_trainer
from tests.models.test_causal_lm import QUIET
from tests.models.test_distilled_runs import run
from tests.tiny import tiny_model

pytestmark = QUIET


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, r"weight=1.5 must be in \[0, 1\]"),
        ({"weight": 0.0}, "not both 0"),
        ({"hidden": -1.0}, "hidden=-1.0 0 or more"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"chunk": 0}, "chunk=0 must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    """When they are given, with the range."""
    with pytest.raises(ValueError, match=message):
        Distillation(**settings)


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({"vocab_size": 64}, {}, "vocabulary of 64 tokens, and the model one of 300"),
        ({"hidden_size": 24}, {"hidden": 1.0}, "has a hidden size of 24, the model 32 before"),
        (
            {"num_hidden_layers": 2},
            {"hidden": 1.0},
            "has a number of blocks of 2, the model 3 before",
        ),
        (None, {}, "as many tokens as the model, but [0-9]+ of them stand for something else"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_pruning(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    changed: dict[str, int] | None,
    settings: dict[str, float],
    message: str,
) -> None:
    """From its files alone: no plan has been made when the error comes."""
    teacher = tmp_path / "teacher"
    tiny_model("llama", **({"vocab_size": 300} | (changed or {}))).save_pretrained(teacher)
    if changed is None:
        names = json.loads((model_folder / "tokenizer.json").read_text())
        vocabulary = names["model"]["vocab"]
        numbers = list(vocabulary.values())
        names["model"]["vocab"] = dict(zip(vocabulary, numbers[1:] + numbers[:1], strict=True))
        names["added_tokens"] = []
        (teacher / "tokenizer.json").write_text(json.dumps(names))
        config = json.loads((model_folder / "tokenizer_config.json").read_text())
        (teacher / "tokenizer_config.json").write_text(json.dumps(config))
    distillation = Distillation(teacher=str(teacher), **settings)
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path / "run", model_folder, text_file, distillation=distillation)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run" / "plan").exists()


def test_an_unknown_teacher_is_refused_before_pruning(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """As an unknown model is."""
    distillation = Distillation(teacher="no such/teacher/anywhere")
    with pytest.raises(FileNotFoundError, match="no model 'no such/teacher/anywhere'"):
        run(tmp_path / "run", model_folder, text_file, distillation=distillation)
    assert not (tmp_path / "run" / "plan").exists()


def test_a_model_is_not_its_own_teacher(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Without a method and without a teacher there is nothing to learn."""
    module = CausalLM(str(model_folder), distillation=Distillation())
    with pytest.raises(ValueError, match="its own teacher, and nothing has pruned it"):
        make_trainer(tmp_path).fit(module, make_data(text_file))


def test_a_pruned_folder_is_not_its_own_teacher(tmp_path: Path, model_folder: Path) -> None:
    """Its plan lies beside it; with the dense model named, blocks are told by their old numbers."""
    model = lightning_prune.load(model_folder)
    plan = lightning_prune.prune(model, DropBlocks(indices=[1]))
    lightning_prune.save(model, tmp_path / "pruned", plan)
    with pytest.raises(ValueError, match="pruned already. Name the dense model"):
        CausalLM(str(tmp_path / "pruned"), distillation=Distillation()).load()
    named = Distillation(teacher=str(model_folder), hidden=1.0)
    module = CausalLM(str(tmp_path / "pruned"), distillation=named)
    module.load()
    at_work = named.start(module)
    layers = at_work.teacher.model.layers
    assert at_work.teaching == [layers[0], layers[2]]


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_pruning(
    model_folder: Path, device: str
) -> None:
    """Both a name that torch does not know, and a device that the machine does not have."""
    module = CausalLM(str(model_folder), distillation=Distillation(device=device))
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used for the teacher"):
        module.load()


def test_a_model_from_a_config_needs_a_named_teacher() -> None:
    """There is no dense one to load."""
    config = tiny_model("llama").config.to_dict()
    module = CausalLM(config=copy.deepcopy(config), distillation=Distillation())
    with pytest.raises(ValueError, match="made from a config. Name a teacher"):
        module.load()
