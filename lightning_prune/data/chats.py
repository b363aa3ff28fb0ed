"""Instruction data: rows with a prompt and its answer, as chats, and as tokens.

Source: the prompts of Taori et al. 2023, "Stanford Alpaca", which LLM-Pruner recovers with too.

Axes: T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lightning_prune.tokens import IGNORED

__all__ = ["ALPACA", "chat_of", "encoded", "prompt_of"]

KEYS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "response"),
    ("prompt", "completion"),
)
"""How rows call a prompt and its answer."""

ALPACA = {
    True: (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    False: (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
    ),
}
"""Prompts with and without an input, for tokenizers that have no chat template."""

Chat = Sequence[Mapping[str, Any]]


def chat_of(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The chat that a row holds, as messages with "role" and "content"; None if it holds none.

    The input of an instruction stands apart in its message, as "input".

    Raises:
        ValueError: the row has the keys of a chat, and something else in them.
    """
    if "messages" in row:
        messages = row["messages"]
        if not isinstance(messages, list) or not all(
            isinstance(message, dict) and "role" in message for message in messages
        ):
            raise ValueError(
                f"holds a {type(messages).__name__} in 'messages' that is no list of messages "
                "with 'role' and 'content'"
            )
        return messages
    keys = next((pair for pair in KEYS if pair[0] in row and pair[1] in row), None)
    if keys is None:
        return None
    for key in keys:
        if not isinstance(row[key], str):
            raise ValueError(f"holds a {type(row[key]).__name__} in {key!r}; it has to be a text")
    asked = {"role": "user", "content": row[keys[0]]}
    if isinstance(row.get("input"), str) and row["input"].strip():
        asked["input"] = row["input"]
    return [asked, {"role": "assistant", "content": row[keys[1]]}]


def prompt_of(chat: Chat) -> str:
    """What stands before the first answer: chats with one prompt belong to one split.

    Prompts that differ in case, spaces or empty messages alone are one prompt; so are an
    instruction with its input, and one message that says both.
    """
    said: list[str] = []
    for message in chat:
        if message["role"] == "assistant":
            break
        said += [str(message.get(part) or "") for part in ("content", "input")]
    return " ".join(" ".join(said).casefold().split())


def encoded(
    chat: Chat, tokenizer: PreTrainedTokenizerBase, length: int, train_on_prompt: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The first tokens of a chat, (T,), and their labels; None if they ask for no token.

    Rendered by the tokenizer's chat template; without one, a prompt and its answer are rendered by
    Alpaca's, and the answer ends with the tokenizer's end token.

    Args:
        chat: its messages.
        tokenizer: of the model.
        length: how many tokens at most.
        train_on_prompt: whether prompts have labels too; else answers alone have.

    Raises:
        ValueError: the chat cannot be rendered, or prompts cannot be told from answers.
    """
    if not any(_said(message) for message in chat if message["role"] == "assistant"):
        return None
    templated = bool(tokenizer.chat_template)
    text, answers = (_templated if templated else _alpaca)(chat, tokenizer, train_on_prompt)
    spans = not train_on_prompt
    if spans and not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for, so "
            "prompts cannot be told from answers. Set train_on_prompt: true, or take a fast "
            "tokenizer."
        )
    # A chat template writes the special tokens itself.
    found = tokenizer(
        text, add_special_tokens=not templated, return_offsets_mapping=spans, verbose=False
    )
    ids: list[int] = list(found["input_ids"])
    labels = list(ids)
    if spans:
        places = found["offset_mapping"]
        labels = [i if _within(p, answers) else IGNORED for i, p in zip(ids, places, strict=True)]
    end = tokenizer.eos_token_id
    if not templated and end is not None:
        if ids[-1] == end:
            labels[-1] = end
        else:
            ids, labels = [*ids, end], [*labels, end]
    ids_T, labels_T = torch.tensor(ids[:length]), torch.tensor(labels[:length])
    return (ids_T, labels_T) if bool((labels_T[1:] != IGNORED).any()) else None


def _said(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return bool(content.strip() if isinstance(content, str) else content)


def _within(place: tuple[int, int], answers: Sequence[tuple[int, int]]) -> bool:
    first, last = place
    return first < last and any(first < end and last > start for start, end in answers)


def _alpaca(
    chat: Chat, tokenizer: PreTrainedTokenizerBase, whole: bool
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a prompt and its answer, and where in it the answer is."""
    if [message["role"] for message in chat] != ["user", "assistant"]:
        raise ValueError(
            "the rows hold 'messages', and this tokenizer has no chat template. Use an "
            "instruction-tuned model's tokenizer, or rows with a prompt and its answer "
            "(instruction, input, output), or with plain text."
        )
    asked, answer = chat
    template = ALPACA["input" in asked]
    prompt = template.format(instruction=asked["content"], input=asked.get("input"))
    text = prompt + answer["content"]
    return text, [(len(prompt), len(text))]


def _templated(
    chat: Chat, tokenizer: PreTrainedTokenizerBase, whole: bool
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a chat, and where in it the answers are; not looked for if `whole` counts."""
    messages = [_joined(message) for message in chat]

    def render(count: int, **settings: Any) -> str:
        if not count:
            return ""
        text = tokenizer.apply_chat_template(messages[:count], tokenize=False, **settings)
        assert isinstance(text, str)
        return text

    text, answers = render(len(messages)), []
    for i, message in enumerate(messages):
        if whole or message["role"] != "assistant":
            continue
        before, behind = render(i, add_generation_prompt=True), render(i + 1)
        if not text.startswith(before):
            before = render(i)
        if not text.startswith(before) or not text.startswith(behind):
            raise ValueError(
                "this tokenizer's chat template renders the beginning of a chat otherwise than "
                "the whole, so prompts cannot be told from answers. Set train_on_prompt: true."
            )
        answers.append((len(before), len(behind)))
    return text, answers


def _joined(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates know it, an instruction with its input."""
    if "input" not in message:
        return dict(message)
    return {"role": message["role"], "content": f"{message['content']}\n\n{message['input']}"}
