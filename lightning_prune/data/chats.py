"""Instruction data: chats as tokens, and what is learnt of them.

Axes: T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from lightning_prune.data.rendering import Rendering
from lightning_prune.data.templates import Message, alpaca_text, templated_text
from lightning_prune.tokens import IGNORED, begin_tokens

__all__ = ["encoded", "prompt_of"]


def prompt_of(chat: Sequence[Message]) -> str:
    """What stands before the first answer: chats with one prompt belong to one split.

    Prompts that differ in case, spaces or empty messages alone are one prompt; so are an
    instruction with its input, and one message that says both.
    """
    texts: list[str] = []
    for message in chat:
        if message["role"] == "assistant":
            break
        texts += [str(message.get(part) or "") for part in ("content", "input")]
    return " ".join(" ".join(texts).casefold().split())


def encoded(
    chat: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    rendering: Rendering,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The first tokens of a chat, (T,), and their labels; None if they ask for no token.

    Rendered by the tokenizer's chat template; without one, a prompt and its answer are rendered by
    Alpaca's, and the answer ends with the tokenizer's end token.

    Args:
        chat: its messages.
        tokenizer: of the model.
        length: how many tokens at most.
        rendering: how.

    Raises:
        Unrenderable: the chat cannot be rendered, or prompts cannot be told from answers.
        ValueError: no chat can be, with this tokenizer.
    """
    if not any(m["content"].strip() for m in chat if m["role"] == "assistant"):
        return None
    templated, whole = bool(tokenizer.chat_template), rendering.train_on_prompt
    if not whole and not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for, so "
            "prompts cannot be told from answers. Set train_on_prompt: true, or take a fast "
            "tokenizer."
        )
    text, answers = (
        templated_text(chat, tokenizer, whole, rendering.day) if templated else alpaca_text(chat)
    )
    # A chat template writes the special tokens itself.
    encoding = tokenizer(
        text, add_special_tokens=not templated, return_offsets_mapping=not whole, verbose=False
    )
    ids: list[int] = list(encoding["input_ids"])
    labels = list(ids)
    if not whole:
        places = encoding["offset_mapping"]
        labels = [i if _within(p, answers) else IGNORED for i, p in zip(ids, places, strict=True)]
    if not templated:
        ids, labels = _enclosed(ids, labels, tokenizer, rendering)
    ids_T, labels_T = torch.tensor(ids[:length]), torch.tensor(labels[:length])
    return (ids_T, labels_T) if bool((labels_T[1:] != IGNORED).any()) else None


def _enclosed(
    ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase, rendering: Rendering
) -> tuple[list[int], list[int]]:
    """With the end token, which is learnt, and with a begin token where one is asked for."""
    end = tokenizer.eos_token_id
    if end is not None and ids[-1] == end:
        labels = [*labels[:-1], end]
    elif end is not None:
        ids, labels = [*ids, end], [*labels, end]
    begin = list(begin_tokens(tokenizer, True)) if rendering.begin_token else []
    if ids[: len(begin)] != begin:
        ids, labels = [*begin, *ids], [*([IGNORED] * len(begin)), *labels]
    return ids, labels


def _within(place: tuple[int, int], answers: Sequence[tuple[int, int]]) -> bool:
    first, last = place
    return first < last and any(first < end and last > start for start, end in answers)
