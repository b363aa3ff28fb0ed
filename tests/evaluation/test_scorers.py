"""What scorers find in texts, what they say of themselves, and what they refuse."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lightning_prune import Detoxify, Pattern, Profanity, TextClassifier, WordList
from lightning_prune.data.tokenizer import train_tokenizer
from lightning_prune.evaluation import Function, as_scorer
from lightning_prune.evaluation.scorers.base import Scorer

TEXTS = ["a quiet old bridge", "The TREES sing", "birds", ""]


def lengths(texts: Sequence[str]) -> list[float]:
    """Longer texts score higher."""
    return [min(len(text) / 20, 1) for text in texts]


# --- words and patterns ---


def test_words_are_found_whole_and_in_any_case() -> None:
    """Part of a word is not the word; signs beside it are no letters."""
    words = WordList(words=["tree", "OLD", "Straße"])
    assert words.score([*TEXTS, "a tree!", "(old)", "trees, golden", "STRASSE"]) == [
        *(1, 0, 0, 0),
        *(1, 1, 0, 1),
    ]


def test_a_word_may_be_several_and_hold_signs() -> None:
    """With any white space between them; signs stand for themselves."""
    words = WordList(words=["old  bridge", "c++", "a.b"])
    assert words.score(["an old\nbridge", "old, bridge", "in c++ now", "a-b"]) == [1, 0, 1, 0]


def test_words_come_from_a_file_too(tmp_path: Path) -> None:
    """One in each line; the description has their number and a hash of them."""
    path = tmp_path / "words.txt"
    path.write_text("tree\n\nold\n")
    words, same = WordList(file=str(path)), WordList(words=["Old", "tree", "old"])
    assert words.score(TEXTS) == same.score(TEXTS) == [1, 0, 0, 0]
    assert words.describe()["sha256"] == same.describe()["sha256"]
    assert words.describe()["words"] == 2


def test_a_pattern_is_found_or_not() -> None:
    """As Python's regular expressions are."""
    assert Pattern(regex=r"(?i)\btrees?\b").score(TEXTS) == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WordList(), "words=None is not allowed; give either words or a file"),
        (lambda: WordList(words=["a"], file="b"), "give either words or a file"),
        (
            lambda: WordList(words="abc"),
            "words='abc' is not .*; it is a list of texts or None",
        ),
        (lambda: WordList(words=[" "]), r"words=\[' '\] is not allowed; it has to hold a word"),
        (lambda: Pattern(regex="a("), r"regex='a\(' is not allowed; it is no regular expression"),
        (lambda: Pattern(regex="a", threshold=0), r"threshold=0 is not allowed; it is in \(0, 1\]"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(make: Any, message: str) -> None:
    """When the scorer is made."""
    with pytest.raises(ValueError, match=message):
        make()


def test_a_file_of_words_has_to_be_there(tmp_path: Path) -> None:
    """When the scorer is made."""
    with pytest.raises(FileNotFoundError, match=r"there is no file of words 'none.txt'"):
        WordList(file="none.txt")


# --- functions, and what all scorers share ---


def test_a_function_becomes_a_scorer_and_a_scorer_stays_one() -> None:
    """Named by its place; classes and other things are refused."""
    scorer = as_scorer(lengths)
    assert scorer.score(["a" * 10]) == [0.5]
    assert scorer.describe()["arguments"]["function"].endswith("test_scorers.lengths")
    assert as_scorer(scorer) is scorer
    with pytest.raises(TypeError, match=r"is no scorer and no function of texts: write WordList()"):
        as_scorer(WordList)
    with pytest.raises(TypeError, match="3 is no scorer"):
        as_scorer(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: [0.5], r"gave 1 scores for 2 texts"),
        (lambda texts: [0.5, 1.5], r"gave the score 1.5; scores are in \[0, 1\]"),
        (lambda texts: [0.5, float("nan")], "gave the score nan"),
    ],
)
def test_scores_are_one_a_text_between_0_and_1(function: Any, message: str) -> None:
    """Whatever a function gives."""
    with pytest.raises(ValueError, match=message):
        Function(function=function).score(["a", "b"])


def test_one_text_is_no_list_of_texts_and_none_has_no_scores() -> None:
    """The letters of a text are not scored."""
    with pytest.raises(ValueError, match="Pattern takes a list of texts; got one text"):
        Pattern(regex="a").score("abc")
    assert Pattern(regex="a").score([]) == []


@pytest.mark.parametrize("scorer", [WordList(words=["a"]), Pattern(regex="a"), as_scorer(lengths)])
def test_a_description_can_be_written_as_json_and_says_what_is_missed(scorer: Scorer) -> None:
    """It stands beside every rate."""
    described = json.loads(json.dumps(scorer.describe()))
    assert described["class"] == type(scorer).__name__
    assert described["arguments"]["threshold"] == 0.5
    assert described["misses"] == scorer.misses
    assert len(scorer.misses) > 20


# --- packages ---


def test_profanity_is_told_by_its_package() -> None:
    """A mild curse scores higher than none; the version of the package is said."""
    pytest.importorskip("profanity_check", reason="needs alt-profanity-check (extra `behaviour`)")
    scorer = Profanity()
    mild, none = scorer.score(["what the hell, damn it", "birds sing under the bridge"])
    assert mild > 0.5 > none
    assert re.fullmatch(r"[\d.]+", scorer.describe()["version"])


@pytest.mark.parametrize(
    ("cls", "module", "install"),
    [
        (Profanity, "profanity_check", r'pip install "lightning-prune\[behaviour\]"'),
        (Detoxify, "detoxify", "pip install detoxify"),
    ],
)
def test_without_its_package_it_is_said_what_to_install(
    cls: type[Scorer], module: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the scorer is made."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"{cls.__name__} needs the package '{module}'.*{install}"):
        cls()


def test_detoxify_is_asked_for_one_of_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, of a classifier that is made once."""
    made: list[tuple[str, str]] = []

    class Classifier:
        def __init__(self, model: str, device: str) -> None:
            made.append((model, device))

        def predict(self, texts: list[str]) -> dict[str, list[float]]:
            assert len(texts) <= 2
            return {"toxicity": lengths(texts), "threat": [0.0] * len(texts)}

    module: Any = ModuleType("detoxify")
    module.Detoxify, module.__spec__ = Classifier, pytest.__spec__
    monkeypatch.setitem(sys.modules, "detoxify", module)
    scorer = Detoxify(model="unbiased", batch_size=2)
    assert scorer.score(TEXTS) == scorer.score(TEXTS) == lengths(TEXTS)
    assert made == [("unbiased", "cpu")]
    with pytest.raises(ValueError, match="label='toxic' is not allowed; it is one of toxicity, th"):
        Detoxify(label="toxic", batch_size=2).score(TEXTS)


# --- classifiers ---


def classifier(folder: Path, labels: Sequence[str], **settings: Any) -> str:
    """A tiny random classifier of texts in a folder."""
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.model_max_length = 16
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        initializer_range=1.0,
        **settings,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_labels_share_the_probability(tmp_path: Path) -> None:
    """Those of all of them add up to 1, whatever the batch; texts are cut at what it can take."""
    folder = classifier(tmp_path, ["mild", "toxic", "spam"])
    texts = [*TEXTS[:3], "a quiet old bridge " * 20]
    scores = {
        label: TextClassifier(model=folder, label=label, batch_size=2).score(texts)
        for label in ("mild", "toxic", "spam")
    }
    totals = [sum(of_text) for of_text in zip(*scores.values(), strict=True)]
    torch.testing.assert_close(torch.tensor(totals), torch.ones(4))
    alone = TextClassifier(model=folder, label="toxic", batch_size=1).score(texts)
    torch.testing.assert_close(torch.tensor(alone), torch.tensor(scores["toxic"]))
    longer = TextClassifier(model=folder, label="toxic").score([*texts[:3], texts[3] + " birds"])
    assert longer[3] == pytest.approx(scores["toxic"][3])
    assert "the first 16 tokens" in TextClassifier(model=folder, label="toxic").misses


def test_labels_of_which_a_text_may_have_several_are_told_one_by_one(tmp_path: Path) -> None:
    """As the model's config says; a model of one label needs no name of it."""
    several = {"problem_type": "multi_label_classification"}
    folder = classifier(tmp_path / "several", ["toxic", "threat"], **several)
    both = [TextClassifier(model=folder, label=label).score(TEXTS) for label in ("toxic", "threat")]
    totals = [toxic + threat for toxic, threat in zip(*both, strict=True)]
    assert all(abs(total - 1) > 1e-4 for total in totals)
    single = TextClassifier(model=classifier(tmp_path / "single", ["toxic"]))
    assert len({round(score, 4) for score in single.score(TEXTS)}) > 1


def test_a_classifier_is_described_by_a_hash_of_its_weights(tmp_path: Path) -> None:
    """Other weights under the same name are another scorer."""
    folder = classifier(tmp_path, ["mild", "toxic"])
    first = TextClassifier(model=folder, label="toxic").describe()
    assert first == json.loads(json.dumps(first))
    classifier(tmp_path, ["mild", "toxic"], hidden_act="relu")
    assert TextClassifier(model=folder, label="toxic").describe()["sha256"] == first["sha256"]
    model = BertForSequenceClassification.from_pretrained(folder)
    model.classifier.weight.data += 1
    model.save_pretrained(folder)
    assert TextClassifier(model=folder, label="toxic").describe()["sha256"] != first["sha256"]


@pytest.mark.parametrize("label", [None, "hate"])
def test_a_label_that_is_not_there_is_refused_with_those_that_are(
    label: str | None, tmp_path: Path
) -> None:
    """When the scorer is made; and of several one has to be named."""
    folder = classifier(tmp_path, ["mild", "toxic"])
    with pytest.raises(ValueError, match=f"label={label!r} is not allowed; .* has 'mild', 'toxic'"):
        TextClassifier(model=folder, label=label)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    """A folder without a model, and a model whose values are no probabilities."""
    with pytest.raises(ValueError, match="TextClassifier: model='.*' cannot be read"):
        TextClassifier(model=str(tmp_path))
    folder = classifier(tmp_path / "regression", ["value"], problem_type="regression")
    with pytest.raises(ValueError, match="it is a regression, whose values are no probabilities"):
        TextClassifier(model=folder)
