"""Tasks of lm-eval on a model in memory, with task files and data in a local folder."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.evaluation import Evaluation, check_tasks, perplexity, zero_shot
from lightning_prune.models.loading import Source

CHOICE = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sums.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
ROLLING = """
task: passage
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/passage.jsonl}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
"""
TEXTS = ["The statement is a simple form of assert.", "An expression, in the list, is evaluated."]
SUMS = [
    {"question": f"Is {i} in the list?", "choices": [" the list", " zqx"], "label": i % 2}
    for i in range(6)
]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two task files, and their data."""
    pytest.importorskip("lm_eval", reason="needs lm-eval (the extra `evaluation`)")
    folder = tmp_path_factory.mktemp("tasks")
    for name, text, rows in (
        ("sums", CHOICE, SUMS),
        ("passage", ROLLING, [{"text": text} for text in TEXTS]),
    ):
        (folder / f"{name}.yaml").write_text(text.format(folder=folder))
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def both(model_folder: Path) -> tuple[Any, Any]:
    """A model and its tokenizer."""
    source = Source(str(model_folder))
    return source.model("auto", None), source.tokenizer()


@torch.no_grad()
def chosen(model: Any, tokenizer: Any, row: dict[str, Any]) -> int:
    """The likelier choice, token by token."""
    sums = []
    for choice in row["choices"]:
        prompt, whole = (
            tokenizer(t).input_ids for t in (row["question"], row["question"] + choice)
        )
        logits_TV = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        sums.append(sum(float(logits_TV[t - 1, whole[t]]) for t in range(len(prompt), len(whole))))
    return sums.index(max(sums))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.slow
def test_tasks_are_scored_as_a_loop_over_the_choices_does(
    tasks: Path, both: tuple[Any, Any]
) -> None:
    """Accuracy, its standard error, and how many questions it was."""
    [score] = zero_shot(*both, ["sums"], task_folder=tasks, batch_size=4)
    right = [chosen(*both, row) == row["label"] for row in SUMS]
    mean = sum(right) / len(right)
    assert (score.task, score.metric, score.examples, score.few_shot) == ("sums", "acc", 6, 0)
    assert score.value == pytest.approx(mean)
    assert score.stderr == pytest.approx(math.sqrt(mean * (1 - mean) / (len(right) - 1)))
    [few] = zero_shot(*both, ["sums"], task_folder=tasks, limit=2)
    assert few.examples == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_more_solved_examples_than_there_are_is_not_blamed_on_the_network(
    tasks: Path, both: tuple[Any, Any]
) -> None:
    """The data is here."""
    with pytest.raises(ValueError, match="few_shot=100 is more than the solved examples") as told:
        zero_shot(*both, ["sums"], task_folder=tasks, few_shot=100)
    assert "hub" not in str(told.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("error", "blamed"), [(ConnectionError("no route"), True), (RuntimeError("no shape"), False)]
)
def test_the_network_is_blamed_for_what_is_its_fault(
    tasks: Path,
    both: tuple[Any, Any],
    error: Exception,
    blamed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And whatever it was is said."""
    import lm_eval

    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(lm_eval, "simple_evaluate", fails)
    with pytest.raises(ValueError, match=str(error)) as told:
        zero_shot(*both, ["sums"], task_folder=tasks)
    assert ("without a network" in str(told.value)) == blamed


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_neither_git_nor_bars_are_heard_in_a_log(
    tasks: Path,
    both: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In a folder that is no repository, with standard error in a file."""
    monkeypatch.chdir(tmp_path)
    zero_shot(*both, ["sums"], task_folder=tasks, limit=2)
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_perplexity_is_what_lm_eval_makes_of_the_same_windows(
    tasks: Path, both: tuple[Any, Any], batch_size: int
) -> None:
    """lm-eval puts the end token in front, and divides the same loss by words."""
    model, tokenizer = both
    [score] = zero_shot(*both, ["passage"], task_folder=tasks, batch_size=batch_size)
    total, words = 0.0, 0
    for text in TEXTS:
        ids = [tokenizer.bos_token_id, *tokenizer(text).input_ids]
        found = perplexity(model, [{"input_ids": torch.tensor([ids])}])
        total += math.log(found) * (len(ids) - 1)
        words += len(text.split())
    assert score.value == pytest.approx(math.exp(total / words), rel=1e-4)
    assert not score.higher_is_better


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_unknown_task_is_refused_by_its_name(
    tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a model is loaded; without lm-eval's own tasks, which take long to list."""
    import lm_eval.tasks

    own = partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", own)
    with pytest.raises(ValueError, match=r"'sumz' are not known to lm-eval.*Did you mean sums\?$"):
        check_tasks(["sums", "sumz"], tasks)
    with pytest.raises(ValueError, match="is no folder"):
        check_tasks(["sums"], "nowhere")


def test_without_lm_eval_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with the name of the extra."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-prune\[evaluation\]'"):
        check_tasks(["boolq"])


def test_a_group_counts_once_in_the_mean(
    tasks: Path, both: tuple[Any, Any], tmp_path: Path
) -> None:
    """Its members are in it already; it has their examples."""
    for name in ("one", "two", "three"):
        text = CHOICE.format(folder=tasks).replace("task: sums", f"task: {name}")
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "pair.yaml").write_text(
        "group: pair\ntask: [one, two]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]"
    )
    found = zero_shot(*both, ["pair", "three"], task_folder=tmp_path, limit=4)
    scores = {score.task: score for score in found}
    assert {name: score.in_group for name, score in scores.items()} == {
        "pair": False, "one": True, "two": True, "three": False
    }  # fmt: skip
    assert scores["pair"].examples == 8
    mean = Evaluation(tasks=found).mean_accuracy
    assert mean is not None
    assert mean.task == "mean of 2"
    assert mean.value == pytest.approx((scores["pair"].value + scores["three"].value) / 2)
