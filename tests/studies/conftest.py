"""A model and its text, for studies without a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_prune import CausalLM, TextData


@pytest.fixture
def module(model_folder: Path) -> CausalLM:
    return CausalLM(str(model_folder))


@pytest.fixture
def data(text_file: Path) -> TextData:
    return TextData(str(text_file), length=32, nsamples=8)
