"""Made-up text, and tokenizers trained on it in a moment."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import datasets
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from lightning_prune.data.tokenizer import train_tokenizer

_WORDS = ("the", "a", "tree", "river", "runs", "under", "old", "bridge", "quiet", "birds", "sing")

SPLITS = ("train", "validation", "test")

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + eos_token }}{% endfor %}"
)


def lines(count: int, seed: int = 0) -> list[str]:
    """`count` different lines of eight words, each with its number."""
    generator = random.Random(seed)
    return [f"{i} {' '.join(generator.choices(_WORDS, k=8))}." for i in range(count)]


def text(count: int, seed: int = 0) -> str:
    """`count` lines, each ended."""
    return "".join(line + "\n" for line in lines(count, seed))


def tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 300 tokens."""
    trained = train_tokenizer([text(200)], 300)
    trained.chat_template = CHAT_TEMPLATE if chat else None
    return trained


def begin_tokenizer(tokens: tuple[str, ...] = ("<bos>",)) -> PreTrainedTokenizerFast:
    """A tokenizer that puts begin tokens in front of every text, as that of Llama 3 does."""
    trained = train_tokenizer([text(200)], 300)
    trained.add_special_tokens({"bos_token": tokens[0], "additional_special_tokens": [*tokens[1:]]})
    numbers = [(name, trained.convert_tokens_to_ids(name)) for name in tokens]
    template = " ".join((*tokens, "$A"))
    trained.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=f"{template} $B", special_tokens=numbers
    )
    return trained


def chat(number: int, words: int = 3) -> dict[str, list[dict[str, str]]]:
    """A row of chat data."""
    answer = " ".join([str(number)] * words)
    return {
        "messages": [
            {"role": "user", "content": f"count {number}"},
            {"role": "assistant", "content": answer},
        ]
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows into a file of the kind that its name says."""
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(path))
        return
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
