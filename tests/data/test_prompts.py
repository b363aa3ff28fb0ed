"""Prompts as a reference set: which records are taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Tokenizer

from lightning_prune import Prompts
from lightning_prune.data.records import read_records
from tests.data.words import begin_tokenizer, lines, write_rows
from tests.shared import shared_path


def row(text: Any, score: Any, more: Any = " and so on") -> dict[str, Any]:
    """A record in the schema of RealToxicityPrompts."""
    return {
        "filename": "a.txt",
        "prompt": {"text": text, "toxicity": score},
        "continuation": {"text": more, "toxicity": score},
    }


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Ten prompts of scores 0.0 to 0.9, and one without."""
    path = tmp_path / "prompts.jsonl.gz"
    write_rows(path, [row(line, i / 10) for i, line in enumerate(lines(10))] + [row("none", None)])
    return path


# --- which are taken ---


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"above": 0.7}, [7, 8, 9]),
        ({"below": 0.2}, [0, 1, 2]),
        ({"above": 0.3, "below": 0.4}, [3, 4]),
    ],
)
def test_prompts_are_chosen_by_their_score(
    limits: dict[str, float], expected: list[int], records: Path, tokenizer: Tokenizer
) -> None:
    """The limits themselves pass; a record without a score does not, and is counted."""
    prompts = Prompts(source=str(records), score="prompt.toxicity", **limits)
    assert prompts.texts() == [lines(10)[i] for i in expected]
    prompts.batches(tokenizer, 128)
    facts = prompts.describe()
    assert facts["sequences"] == len(expected)
    assert (facts["records"], facts["without_score"], facts["passed"]) == (11, 1, len(expected))


def test_all_prompts_are_taken_without_a_score(records: Path) -> None:
    """In their order; without nsamples nothing is drawn, whatever the seed."""
    prompts = Prompts(source=str(records))
    assert prompts.texts() == [*lines(10), "none"]
    assert prompts.with_seed(4) is prompts


def test_prompts_are_drawn_by_seed(records: Path) -> None:
    """Each once, the same for the same seed."""
    prompts = Prompts(source=str(records), score="prompt.toxicity", below=1, nsamples=6)
    first, second, again = (prompts.with_seed(seed).texts() for seed in (0, 1, 0))
    assert first == again != second
    assert len(set(first)) == 6
    assert set(first) < set(lines(10))


def test_several_fields_are_joined_as_they_are(records: Path) -> None:
    """A prompt and how it goes on."""
    prompts = Prompts(source=str(records), text=["prompt.text", "continuation.text"])
    assert prompts.texts()[0] == f"{lines(1)[0]} and so on"


@pytest.mark.parametrize("name", ["plain.txt", "rows.json", "rows.parquet"])
def test_lines_and_rows_of_other_files_are_read_too(name: str, tmp_path: Path) -> None:
    """Blank lines are no prompts."""
    path = tmp_path / name
    if path.suffix == ".parquet":
        write_rows(path, [{"prompt": {"text": "one"}}, {"prompt": {"text": "two"}}])
    else:
        rows = '[{"prompt": {"text": "one"}}, {"prompt": {"text": "two"}}]'
        path.write_text("one\n\ntwo\n" if path.suffix == ".txt" else rows)
    assert Prompts(source=str(path)).texts() == ["one", "two"]


def test_scores_are_numbers_or_null(tmp_path: Path) -> None:
    """True and false are 1 and 0, and what is not a number is no score."""
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"t": "a", "s": s} for s in (True, False, 2, None, float("nan"))])
    assert [record.score for record in read_records(path, "t", "s")] == [1, 0, 2, None, None]


# --- as tokens ---


def test_a_long_prompt_keeps_its_end_behind_the_begin_token(tmp_path: Path) -> None:
    """The last token is what is explained; prompts of like lengths stand together."""
    tokenizer = begin_tokenizer()
    texts = [" ".join(lines(2)), "a tree", "a quiet old river", " ".join(lines(4))]
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(texts))
    prompts = Prompts(source=str(path), length=12, batch_size=2)
    batches = prompts.batches(tokenizer, 64, len(tokenizer))
    rows = [
        ids_T[mask_T.bool()].tolist()
        for batch in batches
        for ids_T, mask_T in zip(
            batch["input_ids"],
            batch.get("attention_mask", torch.ones_like(batch["input_ids"])),
            strict=True,
        )
    ]
    begin = tokenizer.bos_token_id
    whole = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert rows == sorted(([begin, *ids[-11:]] for ids in whole), key=len)
    assert [len(ids) for ids in rows][2:] == [12, 12]
    assert "attention_mask" in batches[0]
    assert int(batches[0]["attention_mask"][0, 0]) == 1, "padded on the right"
    assert "attention_mask" not in batches[1]
    assert prompts.describe()["shortened"] == 2


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": "s"}, "score='s' is not allowed; say above or below which score"),
        ({"above": 0.5}, "score=None is not allowed; name the field that above and below look at"),
        ({"score": "s", "above": 0.5, "below": 0.4}, "below=0.4 is not allowed; it is above=0.5"),
        ({"text": []}, "text=.. is not allowed; it is the name of a field, or a list of names"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: dict[str, Any], message: str
) -> None:
    """When the set is made."""
    with pytest.raises(ValueError, match=message):
        Prompts(source="prompts.jsonl", **arguments)


def test_a_file_that_is_not_there_is_named() -> None:
    """With the kinds that there may be."""
    with pytest.raises(FileNotFoundError, match=r"there is no file 'none.jsonl'; give one of .txt"):
        Prompts(source="none.jsonl").texts()


@pytest.mark.parametrize("field", ["prompt.texts", "prompt.text.more", "text"])
def test_a_field_that_is_not_there_is_named_with_those_that_are(field: str, records: Path) -> None:
    """With their dots; what is in them is not shown."""
    there = "filename, prompt.text, prompt.toxicity, continuation.text, continuation.toxicity"
    with pytest.raises(
        ValueError, match=f"row 1 of .* has no field '{field}'. Its fields: {there}"
    ):
        Prompts(source=str(records), text=field).texts()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(" ", 0.1), "row 2 of .* has an empty text in 'prompt.text'"),
        (row(3, 0.1), "row 2 of .* holds int in 'prompt.text'; it has to be a text"),
        (row("a", "high"), "row 2 of .* holds str in 'prompt.toxicity'; a score is a number"),
        ("a", "row 2 of .* holds str; it has to be fields with values"),
    ],
)
def test_a_bad_record_is_named_by_its_row(bad: Any, message: str, tmp_path: Path) -> None:
    """Whether it would be taken or not."""
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row("good", 0.9), bad])
    with pytest.raises(ValueError, match=message):
        Prompts(source=str(path), score="prompt.toxicity", above=0.5).texts()


def test_scores_that_none_has_are_refused_with_those_that_there_are(records: Path) -> None:
    """And so are more prompts than there are."""
    high = {"source": str(records), "score": "prompt.toxicity", "above": 0.95}
    with pytest.raises(
        ValueError,
        match="has 11 records and none whose 'prompt.toxicity' is at least 0.95: the 10 scores "
        "that there are lie between 0 and 0.9; ask for others",
    ):
        Prompts(**high).texts()
    many = high | {"above": 0.75, "nsamples": 5}
    with pytest.raises(ValueError, match="nsamples=5 prompts .* 2 among 11 records .* ask for 2"):
        Prompts(**many).texts()


def test_a_plain_text_has_no_scores(tmp_path: Path) -> None:
    """Nor has an empty one prompts."""
    path = tmp_path / "prompts.txt"
    path.write_text("\n")
    with pytest.raises(ValueError, match="is plain text, whose lines have no field 'toxicity'"):
        Prompts(source=str(path), score="toxicity", above=0.5).texts()
    with pytest.raises(ValueError, match="holds no text"):
        Prompts(source=str(path)).texts()


# --- a real file ---


def test_real_toxicity_prompts_are_read_as_they_are(tokenizer: Tokenizer) -> None:
    """5,000 records, of which 19 prompts and 32 continuations have no score."""
    source = str(shared_path("data/realtoxicityprompts/sample_5000.jsonl.gz"))
    whole = ["prompt.text", "continuation.text"]
    toxic = Prompts(source=source, score="prompt.toxicity", above=0.9, nsamples=32)
    mild = Prompts(source=source, text=whole, score="continuation.toxicity", below=0.1, nsamples=32)
    for prompts, missing in ((toxic, 19), (mild, 32)):
        batches = prompts.batches(tokenizer, 128, len(tokenizer))
        facts = prompts.describe()
        assert sum(len(batch["input_ids"]) for batch in batches) == 32
        assert (facts["records"], facts["without_score"]) == (5000, missing)
        assert 32 < facts["passed"] < 5000
