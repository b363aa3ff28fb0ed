"""Evaluations as values."""

from __future__ import annotations

import json
import math

from lightning_prune.evaluation import Answer, Evaluation, Size, Speed, TaskScore, TextPerplexity
from lightning_prune.report.numbers import finite


def task(name: str, value: float, stderr: float | None = None, metric: str = "acc") -> TaskScore:
    return TaskScore(name, metric, value, stderr, examples=10, few_shot=0)


def test_an_evaluation_survives_json_also_with_infinite_numbers() -> None:
    """Reading what was written gives an equal one."""
    found = Evaluation(
        [TextPerplexity("builtin", "test", 128, 4, math.inf)],
        [task("boolq", 0.5, 0.1), task("made", math.inf)],
        [Answer("a", "b", 0.5)],
        [Speed(1, 8, 0.5, 0.1, None)],
        Size(10, 5, 40),
    )
    text = json.dumps(finite(found.to_dict()), allow_nan=False)
    assert Evaluation.from_dict(json.loads(text)) == found
    assert Evaluation.from_dict({}) == Evaluation()


def test_the_mean_accuracy_is_of_acc_alone() -> None:
    """Two tasks have one; its standard error adds up as of independent tasks."""
    tasks = [task("a", 0.4, 0.03), task("a", 0.9, 0.01, "acc_norm"), task("b", 0.6, 0.04)]
    mean = Evaluation(tasks=tasks).mean_accuracy
    assert mean is not None
    assert mean.value == 0.5
    assert math.isclose(mean.stderr or 0, 0.05 / 2)
    assert Evaluation(tasks=tasks[:2]).mean_accuracy is None


def test_speeds_are_of_the_whole_batch() -> None:
    """Tokens over seconds."""
    speed = Speed(batch_size=4, prompt=100, prefill_seconds=0.5, decode_seconds=0.01, peak_bytes=1)
    assert speed.prefill_tokens_per_second == 800
    assert speed.decode_tokens_per_second == 400
