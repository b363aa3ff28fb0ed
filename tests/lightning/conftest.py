"""A tiny Llama with its own tokenizer, and a text, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_prune.data.sources import read
from lightning_prune.data.tokenizer import train_tokenizer
from tests.tiny import tiny_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama: 3 blocks of 8 heads in 4 groups, 22 neurons, 300 tokens."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama", vocab_size=300).save_pretrained(folder)
    train_tokenizer(read("builtin", "validation").items[:3], 300).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some ten thousand characters."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(read("builtin", "validation").text()[:12_000])
    return path
