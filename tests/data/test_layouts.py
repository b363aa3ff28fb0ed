"""The columns of instruction sets: all that belongs to a prompt is in the chat, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.data.chats import encoded
from lightning_prune.data.layouts import CONVERSATIONS, PAIRS, chat_of
from lightning_prune.data.rendering import Rendering
from lightning_prune.data.sources import read
from lightning_prune.data.templates import ALPACA
from tests.data import words

ASKED, SAID = "How tall is it?", "9 metres."
TURNS = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
SYSTEM = {"role": "system", "content": "be brief"}

ROWS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "Alpaca": ({"instruction": ASKED, "input": "", "output": SAID, "text": "..."}, TURNS),
    "Dolly": (
        {"instruction": ASKED, "context": "A tower.", "response": SAID, "category": "qa"},
        [TURNS[0] | {"input": "A tower."}, TURNS[1]],
    ),
    "ShareGPT": (
        {
            "id": 1,
            "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}],
        },
        TURNS,
    ),
    "OpenHermes 2.5": (
        {
            "system_prompt": "be brief",
            "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}],
            "source": "x",
        },
        [SYSTEM, *TURNS],
    ),
    "SlimOrca": (
        {
            "conversations": [
                {"from": "system", "value": "be brief", "weight": None},
                {"from": "human", "value": ASKED, "weight": 0.0},
                {"from": "gpt", "value": SAID, "weight": 1.0},
            ]
        },
        [SYSTEM, *TURNS],
    ),
    "UltraChat 200k, No Robots": ({"prompt": ASKED, "prompt_id": "1", "messages": TURNS}, TURNS),
    "Tulu": ({"id": "1", "source": "x", "messages": TURNS}, TURNS),
    "UltraChat": ({"id": "1", "data": [ASKED, SAID]}, TURNS),
    "LIMA": ({"conversations": [ASKED, SAID], "source": "x"}, TURNS),
    "Capybara": ({"source": "x", "conversation": [{"input": ASKED, "output": SAID}]}, TURNS),
    "WildChat": ({"conversation": [{**TURNS[0], "toxic": False}, TURNS[1]]}, None),
    "WizardLM": ({"instruction": ASKED, "output": SAID}, TURNS),
    "Self-Instruct": ({"prompt": ASKED, "completion": SAID}, TURNS),
    "FLAN": ({"inputs": ASKED, "targets": SAID, "task": "x"}, TURNS),
    "Natural Instructions": (
        {"definition": ASKED, "inputs": "A tower.", "targets": SAID},
        [TURNS[0] | {"input": "A tower."}, TURNS[1]],
    ),
    "GSM8K": ({"question": ASKED, "answer": SAID}, TURNS),
    "MetaMathQA": ({"query": ASKED, "response": SAID, "original_question": "x"}, TURNS),
    "CAMEL": ({"role_1": "A physicist", "message_1": ASKED, "message_2": SAID}, TURNS),
    "OpenOrca": (
        {"id": "1", "system_prompt": "be brief", "question": ASKED, "response": SAID},
        [SYSTEM, *TURNS],
    ),
    "with earlier turns": (
        {"instruction": ASKED, "output": SAID, "history": [["Hello", "Hi"]]},
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            *TURNS,
        ],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_columns_of_known_sets_are_a_chat(name: str) -> None:
    """Prompt, answer, and whatever else the prompt is made of, in its place."""
    row, expected = ROWS[name]
    found = chat_of(row)
    assert found is not None
    if expected is None:
        expected = row["conversation"]
    assert list(found) == expected


@pytest.mark.parametrize("columns", PAIRS)
def test_every_pair_of_the_table_is_read(columns: tuple[str, str]) -> None:
    """Also with a blank system prompt, and with columns that say nothing of the prompt."""
    row = {columns[0]: ASKED, columns[1]: SAID, "system": " ", "source": "x"}
    assert chat_of(row) == TURNS


@pytest.mark.parametrize("column", CONVERSATIONS)
def test_every_column_of_turns_is_read(column: str) -> None:
    """In their other names, too."""
    turns: list[Any] = [ASKED, SAID] if column != "messages" else TURNS
    assert chat_of({column: turns}) == TURNS


def test_roles_in_capitals_are_the_same_roles() -> None:
    """Templates know them in small letters alone."""
    turns = [turn | {"role": turn["role"].capitalize()} for turn in [SYSTEM, *TURNS]]
    assert chat_of({"messages": turns}) == [SYSTEM, *TURNS]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a", "rejected": "b"}, "a preference .*text_column=chosen"),
        (
            {"message_id": "1", "parent_id": None, "text": "a", "role": "prompter"},
            "one message of a tree .*path from a root into one row, as 'messages'",
        ),
        ({"messages": TURNS, "tools": [{"name": "search"}]}, "holds 'tools'"),
        ({"instruction": "a", "output": "b", "context": {"x": 1}}, "dict in 'context'"),
        ({"question": "a", "answer": {"text": "b"}}, "dict in 'answer'"),
        ({"conversations": "a\nb"}, "str in 'conversations' that is no list of messages"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, "pairs of texts in 'history'"),
    ],
)
def test_what_cannot_be_learnt_from_is_told(row: dict[str, Any], message: str) -> None:
    """What it holds, and what to do."""
    with pytest.raises(ValueError, match=message):
        chat_of(row)


def test_other_columns_are_named_with_the_layouts_that_are_known(tmp_path: Path) -> None:
    """In one line."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"title": "a", "body": "b"}))
    with pytest.raises(
        ValueError, match="columns title, body, .*'text'.*messages.*question and ans"
    ) as told:
        read(str(file), "train")
    assert "\n" not in str(told.value)


def test_chosen_answers_can_be_learnt_by_their_column(tmp_path: Path) -> None:
    """As texts, or as the conversations that they are."""
    file = tmp_path / "rows.jsonl"
    for chosen in ("\n\nHuman: a\n\nAssistant: b", TURNS):
        file.write_text(json.dumps({"chosen": chosen, "rejected": "c"}))
        assert read(str(file), "test", "chosen", whole=True).items == [chosen]


def test_a_context_and_a_system_prompt_are_rendered() -> None:
    """In Alpaca's prompt: as its input, and in place of its first lines."""
    tokenizer = words.tokenizer()
    row = {"instruction": ASKED, "context": "A tower.", "response": SAID}
    for system in ("", "be brief"):
        found = encoded(chat_of(row | {"system": system}) or [], tokenizer, 999, Rendering())
        assert found is not None
        prompt = ALPACA[True].format(instruction=ASKED, input="A tower.")
        if system:
            prompt = system + prompt[prompt.index("\n\n") :]
        assert tokenizer.decode(found[0]) == f"{prompt}{SAID}<|endoftext|>"
