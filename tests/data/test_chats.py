"""Instruction data: what is learnt of a chat, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_prune.data.chats import encoded, prompt_of
from lightning_prune.data.documents import Documents, share
from lightning_prune.data.layouts import chat_of
from lightning_prune.data.rendering import Rendering
from lightning_prune.data.templates import ALPACA
from lightning_prune.tokens import IGNORED
from tests.data.words import chat

Tokenizer = PreTrainedTokenizerFast

ROW = {"instruction": "count to two", "input": "from one", "output": "one two"}


def learnt(row: dict[str, Any], tokenizer: Tokenizer, length: int = 999) -> str:
    """The text of the tokens that have labels."""
    found = encoded(chat_of(row) or [], tokenizer, length, Rendering())
    assert found is not None
    ids_T, labels_T = found
    assert all(label in (IGNORED, number) for number, label in zip(ids_T, labels_T, strict=True))
    return tokenizer.decode(labels_T[labels_T != IGNORED])


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        (ROW, ALPACA[True].format(instruction="count to two", input="from one")),
        (ROW | {"input": " "}, ALPACA[False].format(instruction="count to two")),
        (
            {"prompt": "count to two", "response": "one two"},
            ALPACA[False].format(instruction="count to two"),
        ),
        (
            {"instruction": "count to two", "response": "one two"},
            ALPACA[False].format(instruction="count to two"),
        ),
    ],
)
def test_without_a_chat_template_alpaca_s_is_taken(
    row: dict[str, str], prompt: str, tokenizer: Tokenizer
) -> None:
    """The answer and the end token behind it are learnt; the prompt is read alone."""
    found = encoded(chat_of(row) or [], tokenizer, 999, Rendering())
    assert found is not None
    assert tokenizer.decode(found[0]) == f"{prompt}one two<|endoftext|>"
    assert learnt(row, tokenizer) == "one two<|endoftext|>"


def test_a_chat_template_is_taken_where_there_is_one(chat_tokenizer: Tokenizer) -> None:
    """The input of an instruction follows it in the message."""
    found = encoded(chat_of(ROW) or [], chat_tokenizer, 999, Rendering())
    assert found is not None
    assert chat_tokenizer.decode(found[0]) == (
        "<user>count to two\n\nfrom one<|endoftext|><assistant>one two<|endoftext|>"
    )
    # This template has no generation prompt, so that the answer begins with its role.
    assert learnt(ROW, chat_tokenizer) == "<assistant>one two<|endoftext|>"


def test_every_answer_of_a_long_chat_is_learnt(chat_tokenizer: Tokenizer) -> None:
    """And no question; the generation prompt of the template is no part of an answer."""
    messages = [*chat(1)["messages"], *chat(2)["messages"]]
    chat_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=chat_tokenizer.backend_tokenizer, eos_token="<|endoftext|>"
    )
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
    )
    said = learnt({"messages": messages}, chat_tokenizer)
    assert said == "1 1 1<|endoftext|>2 2 2<|endoftext|>"


def test_a_template_that_rewrites_what_was_said_is_refused(chat_tokenizer: Tokenizer) -> None:
    """Prompts could be learnt without notice; with train_on_prompt there is nothing to tell."""
    strange = PreTrainedTokenizerFast(tokenizer_object=chat_tokenizer.backend_tokenizer)
    strange.chat_template = "{{ messages | length }}{{ messages[0]['content'] }}"
    messages = chat(1)["messages"]
    with pytest.raises(ValueError, match="otherwise than the whole.*train_on_prompt: true"):
        encoded(messages, strange, 99, Rendering())
    assert encoded(messages, strange, 99, Rendering(train_on_prompt=True)) is not None


def test_prompts_are_learnt_if_asked_for(tokenizer: Tokenizer) -> None:
    """Then every token has a label."""
    found = encoded(chat_of(ROW) or [], tokenizer, 999, Rendering(train_on_prompt=True))
    assert found is not None
    assert found[0].tolist() == found[1].tolist()


def test_a_chat_is_cut_and_left_out_where_no_answer_remains(tokenizer: Tokenizer) -> None:
    """Also one whose answer is blank."""
    messages = chat_of(ROW) or []
    whole = encoded(messages, tokenizer, 999, Rendering())
    assert whole is not None
    first = int((whole[1] != IGNORED).nonzero()[0])
    cut = encoded(messages, tokenizer, first + 1, Rendering())
    assert cut is not None
    assert cut[1].tolist() == whole[1][: first + 1].tolist()
    assert encoded(messages, tokenizer, first, Rendering()) is None
    blank = chat_of(ROW | {"output": " "}) or []
    assert encoded(blank, tokenizer, 999, Rendering(train_on_prompt=True)) is None


def test_chats_of_several_turns_need_a_template(tokenizer: Tokenizer) -> None:
    """Alpaca's has one prompt and one answer."""
    messages = [*chat(1)["messages"], *chat(2)["messages"]]
    with pytest.raises(ValueError, match="no chat template.*instruction-tuned"):
        encoded(messages, tokenizer, 99, Rendering())


# --- splits ---


def chats(count: int, repeated: int = 1) -> Documents:
    """Chats with answers of their own; each prompt comes some times."""
    rows = [
        [
            {"role": "user", "content": f"count {i}"},
            {"role": "assistant", "content": f"{i} {again}"},
        ]
        for again in range(repeated)
        for i in range(count)
    ]
    return Documents(rows)


@pytest.mark.parametrize(("count", "held"), [(100, 5), (50_000, 2000)])
def test_validation_gets_five_percent_and_two_thousand_chats_at_most(count: int, held: int) -> None:
    """Test gets as many; they are drawn from everywhere, always the same."""
    parts = {name: share(chats(count), name, "rows") for name in ("train", "validation", "test")}
    assert [len(part.items) for part in parts.values()] == [count - 2 * held, held, held]
    again = share(chats(count), "validation", "rows").items
    assert parts["validation"].items == again != chats(count).items[-2 * held : -held]
    everything = sorted(json.dumps(chat) for part in parts.values() for chat in part.items)
    assert everything == sorted(json.dumps(chat) for chat in chats(count).items)


def test_chats_with_one_prompt_are_in_one_split() -> None:
    """With other answers they would tell what the validation asks for."""
    source = chats(60, repeated=3)
    parts = [share(source, name, "rows").items for name in ("train", "validation", "test")]
    prompts = [{chat[0]["content"] for chat in part} for part in parts]
    assert [len(part) for part in parts] == [3 * 54, 3 * 3, 3 * 3]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 60


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": " Count to  two\nfrom one ", "response": "2"},
        {"messages": [{"role": "user", "content": "count to two\n\nfrom one"}]},
        {"messages": [
            {"role": "system", "content": ""},
            {"role": "user", "content": "COUNT to two from one"},
            {"role": "assistant", "content": "1 2"},
        ]},
    ],
    ids=["spaces", "one message", "an empty message"],
)  # fmt: skip
def test_a_prompt_is_the_same_however_it_is_written(other: dict[str, Any]) -> None:
    """So that none is trained on that is measured; another one is another."""
    assert prompt_of(chat_of(other) or []) == prompt_of(chat_of(ROW) or [])
    assert prompt_of(chat_of({"prompt": "count", "response": "2"}) or []) != prompt_of(
        chat_of(ROW) or []
    )
