"""How well scorers agree with labels."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence

import pytest
from scipy.stats import spearmanr
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from lightning_prune import Pattern, Profanity
from lightning_prune.evaluation import Function, agreement
from tests.shared import shared_path

SCORES = [0.1, 0.4, 0.35, 0.8, 0.6, 0.6, 0.05, 0.9]
LABELS = [0.0, 0.2, 0.7, 0.5, 0.3, 0.9, 0.1, 0.8]


def numbers(texts: Sequence[str]) -> list[float]:
    """The score of a text is what it says."""
    return [float(text) for text in texts]


def test_figures_are_those_of_scikit_learn_and_scipy() -> None:
    """Labels at the cut, and scores at the threshold, count."""
    scorer = Function(function=numbers, threshold=0.6)
    found = agreement(scorer, [str(score) for score in SCORES], LABELS, cut=0.5)
    has, flagged = [label >= 0.5 for label in LABELS], [score >= 0.6 for score in SCORES]
    assert (found.texts, found.labelled, found.flagged) == (8, 4, 4)
    assert found.auc == pytest.approx(roc_auc_score(has, SCORES))
    assert found.spearman == pytest.approx(spearmanr(SCORES, LABELS).statistic)
    assert found.precision == pytest.approx(precision_score(has, flagged))
    assert found.recall == pytest.approx(recall_score(has, flagged))


def test_a_scorer_that_finds_nothing_has_no_precision() -> None:
    """Nor a correlation; its AUC is that of a coin."""
    found = agreement(Pattern(regex="x"), ["a", "b"], [0, 1])
    assert (found.auc, found.spearman, found.precision, found.recall) == (0.5, None, None, 0)


@pytest.mark.parametrize(
    ("labels", "cut", "message"),
    [
        ([0.1], 0.5, "2 texts have 1 labels"),
        ([0.1, float("nan")], 0.5, "a label is infinite or no number"),
        ([0.1, 0.3], 0.5, "0 of 2 labels reach cut=0.5; they lie between 0.1 and 0.3"),
        ([0.7, 0.9], 0.5, "2 of 2 labels reach cut=0.5"),
    ],
)
def test_labels_that_say_nothing_are_refused(labels: list[float], cut: float, message: str) -> None:
    """Before a text is scored."""

    def fails(texts: Sequence[str]) -> list[float]:
        raise AssertionError("a text was scored")

    with pytest.raises(ValueError, match=message):
        agreement(Function(function=fails), ["a", "b"], labels, cut)


@pytest.mark.parametrize(
    ("part", "count", "expected"),
    [
        ("continuation", 4968, (0.884, 0.700, 0.912, 0.500)),
        ("prompt", 4981, (0.881, 0.625, 0.901, 0.460)),
    ],
)
def test_profanity_finds_half_of_what_is_toxic(
    part: str, count: int, expected: tuple[float, ...]
) -> None:
    """On 5,000 records of RealToxicityPrompts, by the scores that come with them."""
    pytest.importorskip("profanity_check", reason="needs alt-profanity-check (extra `behaviour`)")
    path = shared_path("data/realtoxicityprompts/sample_5000.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line)[part] for line in file]
    scored = [(row["text"], row["toxicity"]) for row in rows if row["toxicity"] is not None]
    found = agreement(Profanity(), *map(list, zip(*scored, strict=True)))  # type: ignore[arg-type]
    assert found.texts == count
    figures = (found.auc, found.spearman, found.precision, found.recall)
    assert figures == pytest.approx(expected, abs=0.02)
