"""Where text comes from, and into which split it goes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_prune.data.documents import Documents
from lightning_prune.data.sources import read
from tests.data.words import SPLITS, chat, lines, text, write_rows


def hub(monkeypatch: pytest.MonkeyPatch, rows: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Let the hub give `rows`; returns what it was asked."""
    asked: list[tuple[Any, dict[str, Any]]] = []

    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


# --- named sources ---


def test_builtin_splits_are_whole_topics_that_share_nothing() -> None:
    """The three splits hold different topics, most of them to train on."""
    train, validation, test = (read("builtin", split).items for split in SPLITS)
    assert len(train) > 15 * len(validation) > 0
    assert not set(train) & set(validation + test)
    assert not set(validation) & set(test)


@pytest.mark.parametrize(
    ("source", "config"),
    [("wikitext2", "wikitext-2-raw-v1"), ("wikitext103", "wikitext-103-raw-v1")],
)
def test_wikitext_train_lines_are_joined_otherwise_than_test_lines(
    source: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference codes join with a space in training and with a blank line in test."""
    asked = hub(monkeypatch, datasets.Dataset.from_dict({"text": ["", " = A = \n", "b\n"]}))
    assert read(source, "train").text() == "  = A = \n b\n"
    assert read(source, "test").text() == "\n\n = A = \n\n\nb\n"
    assert [(args[-1], kwargs["split"]) for args, kwargs in asked] == [
        (config, "train"),
        (config, "test"),
    ]


def test_ptb_sentences_are_joined_by_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Penn Treebank has its text in another column."""
    hub(monkeypatch, datasets.Dataset.from_dict({"sentence": ["a b", "c"]}))
    assert read("ptb", "test").text() == "a b c"


def test_c4_streams_one_shard_and_keeps_documents_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only as many documents are drawn from the stream as are needed."""
    drawn = []

    def stream() -> Any:
        for i in range(10**9):
            drawn.append(i)
            yield {"text": f"document {i}"}

    asked = hub(monkeypatch, datasets.IterableDataset.from_generator(stream))
    documents = read("c4", "validation")
    assert documents.separate
    assert documents.items[0] == "document 0"
    assert len(documents.items) <= len(drawn) < 10**5
    (args, kwargs), *_ = asked
    assert args == ("allenai/c4",)
    assert kwargs["streaming"]
    assert list(kwargs["data_files"].values()) == ["en/c4-validation.00000-of-00008.json.gz"]


@pytest.mark.parametrize("source", ["wikitex2", "./wikitext2", "Wikitext2"])
def test_a_misspelt_name_names_the_nearest(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the named sources; a name that is right is not offered where the hub does not give it."""
    hub(monkeypatch, ConnectionError("no route"))
    with pytest.raises(FileNotFoundError, match=r"\. Did you mean wikitext2\?$"):
        read(source, "test")
    for other in ("wikitext2", "somebody/poems"):
        with pytest.raises(FileNotFoundError, match=r"with such files\.$"):
            read(other, "test")


def test_a_dataset_on_the_hub_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """owner/name goes to the hub, with the column that is asked for."""
    rows = datasets.Dataset.from_dict({"body": ["x", "y"]})
    hub(monkeypatch, datasets.DatasetDict(train=rows, validation=rows))
    assert read("owner/name", "train", "body").text() == "x\n\ny"


def test_without_a_network_the_error_says_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that a local path can be given instead."""
    hub(monkeypatch, ConnectionError("no route"))
    with pytest.raises(FileNotFoundError, match=r"test text from 'wikitext2'.*no route.*path of a"):
        read("wikitext2", "test")


def test_a_mistyped_path_is_not_asked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file fails at once, with the names that are known."""
    asked = hub(monkeypatch, ConnectionError())
    for source in ("data/missing.txt", "missing.jsonl", "/nowhere/at/all"):
        with pytest.raises(FileNotFoundError, match=f"{source}.*wikitext2, wikitext103"):
            read(source, "train")
    assert asked == []


# --- files ---


@pytest.mark.parametrize("name", ["book.txt", "book.txt.gz"])
def test_a_text_is_cut_by_characters_at_ends_of_lines(name: str, tmp_path: Path) -> None:
    """The three parts are the text again, and each starts with a line."""
    whole = "x" * 500 + "\n" + text(400)
    opener: Any = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write(whole)
    parts = [read(str(tmp_path / name), split).text() for split in SPLITS]
    assert "".join(parts) == whole
    assert all(part.endswith(".\n") for part in parts)
    assert [round(len(part) / len(whole), 2) for part in parts] == [0.9, 0.05, 0.05]


def test_a_text_of_one_line_is_cut_as_well(tmp_path: Path) -> None:
    """Without an end of line near the cut, the cut is where it falls."""
    (tmp_path / "line.txt").write_text("ab" * 100)
    assert [len(read(str(tmp_path / "line.txt"), split).text()) for split in SPLITS] == [
        180,
        10,
        10,
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_rows_are_split_by_documents(name: str, tmp_path: Path) -> None:
    """90 of 100 documents are for training; the others are joined by blank lines."""
    rows = lines(100)
    write_rows(tmp_path / name, [{"id": i, "text": row} for i, row in enumerate(rows)])
    parts = [read(str(tmp_path / name), split) for split in SPLITS]
    assert [part.items for part in parts] == [rows[:90], rows[90:95], rows[95:]]
    assert parts[1].text() == "\n\n".join(rows[90:95])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_messages_are_chats(name: str, tmp_path: Path) -> None:
    """A column of messages is found without being named."""
    write_rows(tmp_path / name, [chat(i) for i in range(20)])
    parts = [read(str(tmp_path / name), split) for split in SPLITS]
    assert all(part.chats for part in parts)
    chats = sorted(str(chat) for part in parts for chat in part.items)
    assert chats == sorted(str(chat(i)["messages"]) for i in range(20))
    assert not Documents(["a text"]).chats


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_instructions_are_chats(name: str, tmp_path: Path) -> None:
    """Alpaca's rows, as its file is and line by line, also where the text stands beside them."""
    rows = [
        {"instruction": f"add {i}", "input": "1" * (i % 2), "output": f"{i + 1}", "text": "all"}
        for i in range(40)
    ]
    if name.endswith(".json"):
        (tmp_path / name).write_text(json.dumps(rows))
    else:
        write_rows(tmp_path / name, rows)
    found = [chat for split in SPLITS for chat in read(str(tmp_path / name), split).items]
    assert {chat[0]["content"]: chat[1]["content"] for chat in found} == {
        f"add {i}": f"{i + 1}" for i in range(40)
    }
    assert sum("input" in chat[0] for chat in found) == 20


def test_a_column_that_is_named_wins_over_a_chat(tmp_path: Path) -> None:
    """The other way round the rows could not be read as texts."""
    rows = [{"prompt": f"a {i}", "response": "b", "body": f"c {i}"} for i in range(20)]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read(str(tmp_path / "rows.jsonl"), "test", "body").items == ["c 19"]


def test_another_column_can_be_named(tmp_path: Path) -> None:
    """And an unknown one is answered with those there are."""
    write_rows(tmp_path / "rows.jsonl", [{"body": row} for row in lines(20)])
    assert read(str(tmp_path / "rows.jsonl"), "test", "body").items == lines(20)[19:]
    with pytest.raises(
        ValueError, match="columns body, and neither 'text' nor a chat.*text_column"
    ):
        read(str(tmp_path / "rows.jsonl"), "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', "line 2, is not JSON"),
        (
            '{"instruction": "a", "output": 1}\n',
            r"row 1 of .*rows.jsonl holds int in 'output'",
        ),
        (
            '{"messages": ["a"]}\n',
            "holds list in 'messages' that is no list of messages",
        ),
        ('["a"]\n', r"row 1 of .*rows.jsonl has columns of no name"),
        (
            '{"text": "a"}\n{"text": null}\n',
            r"row 2 of .*rows.jsonl holds NoneType in 'text'",
        ),
        ('{"text": "a"}\n{"messages": []}\n', "texts and chats are mixed"),
        (
            '{"messages": [{"role": "user", "content": "a"}]}\n',
            "1 chats of different prompts, too few",
        ),
        ('{"text": " "}\n', "holds no text in its validation split"),
        ("", "holds no text in its validation split"),
    ],
)
def test_rows_that_cannot_be_used_are_named(content: str, message: str, tmp_path: Path) -> None:
    """Which file and row is wrong, and how."""
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        read(str(tmp_path / "rows.jsonl"), "validation")


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """The error lists the kinds."""
    (tmp_path / "book.pdf").write_text("x")
    with pytest.raises(ValueError, match=r"no known kind; known: \.txt"):
        read(str(tmp_path / "book.pdf"), "train")
