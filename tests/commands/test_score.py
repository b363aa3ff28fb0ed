"""`lightning-prune score`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_prune.cli import main

ROWS = [
    {"said": {"text": "a quiet tree", "toxicity": 0.9}},
    {"said": {"text": "the old tree", "toxicity": 0.6}},
    {"said": {"text": "a river", "toxicity": 0.7}},
    {"said": {"text": "birds", "toxicity": 0.1}},
    {"said": {"text": "sing", "toxicity": 0.2}},
    {"said": {"text": "under", "toxicity": None}},
]
FIELDS = ["--text", "said.text", "--score", "said.toxicity"]
TREES = ["--scorer", "Pattern", "--scorer.regex", "tree"]


@pytest.fixture(autouse=True)
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six records in a file, in the folder where one stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def test_a_scorer_is_judged_by_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """A table with what it misses, and the same figures as JSON; no text of the file."""
    main(["score", *TREES, "--labelled", "rows.jsonl", *FIELDS, "--out", "out"])
    said = capsys.readouterr().out
    for expected in (
        "Agreement with rows.jsonl",
        "labelled: said.toxicity is 0.5 or more; flagged: the score is 0.5 or more. It misses what",
        "records without a score, which are left out: 1",
        "out/score.json",
    ):
        assert expected in said, said
    found = json.loads(Path("out/score.json").read_text())
    assert found["scorer"]["arguments"] == {"threshold": 0.5, "regex": "tree"}
    assert found["settings"] == {
        "labelled": "rows.jsonl",
        "text": ["said.text"],
        "score": "said.toxicity",
        "without_score": 1,
    }
    figures = found["agreement"]
    assert (figures["texts"], figures["labelled"], figures["flagged"]) == (5, 3, 2)
    assert (figures["precision"], figures["recall"]) == (1, pytest.approx(2 / 3))
    assert "| Pattern | 5 | 3 | 2 |" in Path("out/score.md").read_text()
    for text in ("quiet", "river", "birds"):
        assert text not in said + Path("out/score.json").read_text()


def test_a_cut_says_who_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    """At 0.8 one record does."""
    main(["score", *TREES, "--labelled", "rows.jsonl", *FIELDS, "--cut", "0.8"])
    assert "labelled: said.toxicity is 0.8 or more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TREES, "--labelled", "none.jsonl", *FIELDS], "there is no file 'none.jsonl'"),
        ([*TREES, "--labelled", "rows.jsonl", "--text", "said.text"], "are required: score"),
        (
            [*TREES, "--labelled", "rows.jsonl", "--text", "text", "--score", "said.toxicity"],
            "has no field 'text'. Its fields: said.text, said.toxicity",
        ),
        ([*TREES, "--labelled", "rows.jsonl", *FIELDS, "--cut", "2"], "0 of 5 labels reach cut=2"),
        (
            ["--scorer", "Patern", "--labelled", "rows.jsonl", *FIELDS],
            "scorer=Patern is not allowed. Did you mean Pattern? Allowed:",
        ),
        (
            ["--scorer", "Pattern", "--scorer.regex", "a(", "--labelled", "rows.jsonl", *FIELDS],
            "Pattern: regex='a(' is not allowed; it is no regular expression",
        ),
    ],
)
def test_a_mistake_of_score_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in all commands."""
    with pytest.raises(SystemExit) as exit:
        main(["score", *arguments])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-prune: error: ")
    assert message in said
    assert said.count("\n") == 1
