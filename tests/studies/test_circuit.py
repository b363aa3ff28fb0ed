"""What a behaviour is due to: each step is done once, and the model is left as it was."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lightning_prune import (
    CausalLM,
    CircuitUnits,
    Pattern,
    Prompts,
    TextData,
    Windows,
    load,
    prune,
    study_circuit,
)
from lightning_prune.callbacks.circuit import Circuit
from lightning_prune.cli import main
from lightning_prune.data.records import Labelled
from lightning_prune.evaluation import Sampling, perplexity
from lightning_prune.evaluation.results import Answer
from lightning_prune.report.circuit import circuit_document
from lightning_prune.report.files import write
from lightning_prune.studies import circuit, without
from tests.contract.cases import assert_same_state, state

PROMPTS = "The object\nA name is bound\nIf the value\n"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(PROMPTS)
    return path


def study(module: CausalLM, data: TextData, folder: Path, prompts: Path, **more: Any) -> Any:
    general = Windows(source=data.source, nsamples=4, length=16)
    undesired = Prompts(source=str(prompts), length=32)
    more = {"counts": [3, 1], "sampling": Sampling(new_tokens=4)} | more
    return study_circuit(module, data, general, undesired, folder, **more)


def test_rows_are_what_one_would_measure(
    module: CausalLM, data: TextData, tmp_path: Path, prompts: Path
) -> None:
    """Of the model without the first members of the list, which is left as it was."""
    result = study(module, data, tmp_path / "run", prompts, controls=["random"], random_draws=1)
    labels = [(row.name, row.count) for row in result.rows]
    assert labels == [*[("dense", 0), ("circuit", 1), ("random", 1), ("circuit", 3), ("random", 3)]]
    dense = load(module.path)
    assert_same_state(module.base, state(dense))
    validation = list(data.val_dataloader())
    assert result.dense.perplexity == pytest.approx(perplexity(dense, validation))
    prune(dense, Circuit(units=tmp_path / "run" / "circuit.json", count=1))
    assert result.row("circuit", 1).perplexity == pytest.approx(perplexity(dense, validation))
    assert result.dense.rate.count == 3
    assert result.dense.score.value == pytest.approx(1 - result.dense.unique.value)


def test_what_is_done_is_not_done_again(
    module: CausalLM,
    data: TextData,
    tmp_path: Path,
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor after a stop in the middle; a seed more takes its own attributions alone."""
    calls: list[str] = []
    for place, name in ((circuit, "attribute"), (without, "completions")):
        real = getattr(place, name)

        def counting(*args: Any, _real: Any = real, _name: str = name, **more: Any) -> Any:
            calls.append(_name)
            if calls.count("completions") == 3:
                raise KeyboardInterrupt
            return _real(*args, **more)

        monkeypatch.setattr(place, name, counting)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        study(module, data, folder, prompts)
    assert calls == ["attribute"] * 3 + ["completions"] * 3
    assert_same_state(module.base, state(load(module.path)))
    result = study(module, data, folder, prompts)
    assert calls[6:] == ["completions"] * 9
    assert study(module, data, folder, prompts).rows == result.rows
    assert len(calls) == 15
    study(module, data, folder, prompts, seeds=[0, 1], counts=[1], controls=[])
    assert calls[15:] in (["attribute"] * 2, ["attribute"] * 2 + ["completions"])


def test_random_parts_are_drawn_several_times(
    module: CausalLM, data: TextData, tmp_path: Path, prompts: Path
) -> None:
    """Each draw is a row in CSV; the table has their mean, and how far they are apart."""
    result = study(module, data, tmp_path / "run", prompts, counts=[5], controls=["random"])
    draws = result.draws("random", 5)
    assert [row.draw for row in draws] == [1, 2, 3]
    values = [row.perplexity for row in draws]
    assert len(set(values)) == 3
    mean = result.row("random", 5)
    assert mean.perplexity == pytest.approx(sum(values) / 3)
    assert mean.rate.low == min(row.rate.value for row in draws)
    document = circuit_document(result)
    files = write(document, tmp_path)
    said = Path(files["result.md"]).read_text()
    assert "random: the mean of 3 draws" in said
    (line,) = (line for line in said.splitlines() if "| random |" in line)
    assert f"± {statistics.stdev(values):.2g} (" in line
    assert len(Path(files["result.csv"]).read_text().splitlines()) == 1 + len(result.rows) == 6
    more = study(module, data, tmp_path / "run", prompts, counts=[5], controls=[], random_draws=0)
    assert more.rows == result.rows[:2]


def test_silence_is_no_repetition(
    module: CausalLM,
    data: TextData,
    tmp_path: Path,
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that ends its text at once has said nothing twice."""
    answers = [Answer("", "", 0.0), Answer("", "no no no no", 0.25), Answer("", "yes", 1.0)]
    monkeypatch.setattr(without, "completions", lambda *_: answers)
    dense = study(module, data, tmp_path / "run", prompts, counts=[1], controls=[]).dense
    assert dense.rate.value == pytest.approx(1 / 3)
    assert dense.score.value == pytest.approx(0.25)
    assert dense.silent == pytest.approx(1 / 3)


def test_a_scorer_stands_beside_its_rates(
    module: CausalLM, data: TextData, tmp_path: Path, prompts: Path
) -> None:
    """With what it misses, and how far it agrees with labels."""
    labelled = tmp_path / "labels.jsonl"
    rows = [{"text": "an apple", "score": 0.9}, {"text": "stone", "score": 0.1}]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = study(
        module,
        data,
        tmp_path / "run",
        prompts,
        counts=[1],
        scorer=Pattern(regex="[a-z]"),
        labelled=Labelled(source=str(labelled)),
    )
    assert result.dense.rate.value == 1.0
    assert result.settings["scorer"]["class"] == "Pattern"
    assert result.settings["agreement"]["precision"] == 0.5
    document = circuit_document(result)
    files = write(document, tmp_path)
    said = Path(files["result.md"]).read_text()
    assert "scored by Pattern" in said
    assert "its precision 0.50" in said
    assert result.settings["scorer"]["misses"] in said
    ElementTree.parse(files["result.svg"])
    page = Path(files["result.html"]).read_text()
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert json.loads(Path(files["result.json"]).read_text())["rows"][0]["name"] == "dense"


def test_a_function_scores_again(
    module: CausalLM, data: TextData, tmp_path: Path, prompts: Path
) -> None:
    """What it does may have changed under its name."""
    for value in (1.0, 0.0):
        result = study(
            *(module, data, tmp_path / "run", prompts),
            counts=[1],
            scorer=lambda texts, v=value: [v] * len(texts),
        )
        assert {row.rate.value for row in result.rows} == {value}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"counts": []}, r"counts=\[\] is not allowed"),
        ({"counts": [0, 3]}, "whole numbers from 1 to 65"),
        ({"counts": [True]}, r"counts=\[True\] is not allowed"),
        ({"controls": ["randm"]}, "controls='randm' is not allowed; it is one of random, "),
        ({"contrast": "guard"}, "contrast='guard' is not allowed; it is one of difference, "),
        ({"seeds": []}, r"seeds=\[\] is not allowed"),
        ({"seeds": [1, 1]}, "each once"),
        ({"by": "magnitude"}, "looks at no samples"),
        ({"random_draws": 0}, "random_draws=0; give 1 or more"),
        ({"windows": -1}, "windows=-1; give 1 or more"),
        ({"counts": [999]}, "the model has 66 neurons"),
    ],
)
def test_what_cannot_be_is_refused(
    module: CausalLM, data: TextData, tmp_path: Path, prompts: Path, more: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        study(module, data, tmp_path / "run", prompts, **more)


def test_a_set_without_prompts_needs_some_to_be_judged_by(
    module: CausalLM, data: TextData, tmp_path: Path
) -> None:
    windows = Windows(source=data.source, nsamples=2, length=16)
    with pytest.raises(ValueError, match="give some as judged=Prompts"):
        study_circuit(module, data, windows, windows, tmp_path)


def test_the_command_leaves_all_files(
    tmp_path: Path, model_folder: Path, text_file: Path, prompts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And what it removed can be removed by another run, from its list."""
    folder = tmp_path / "run"
    windows = {"source": str(text_file), "nsamples": 4, "length": 16}
    general = {"class_path": "Windows", "init_args": windows}
    undesired = {"class_path": "Prompts", "init_args": {"source": str(prompts), "length": 32}}
    main(
        [
            "circuit",
            f"--model.path={model_folder}",
            f"--data.source={text_file}",
            "--data.length=32",
            f"--trainer.default_root_dir={folder}",
            f"--general={json.dumps(general)}",
            f"--undesired={json.dumps(undesired)}",
            "--counts=[2]",
            "--sampling.new_tokens=3",
        ]
    )
    names = {path.name for path in folder.iterdir()}
    assert {"attributions", "circuit.json", "steps", "config.yaml"} <= names
    assert {f"result.{kind}" for kind in ("md", "csv", "json", "svg", "html")} <= names
    assert len(CircuitUnits.load(folder / "circuit.json")) == 2
    assert "magnitude" in capsys.readouterr().out
