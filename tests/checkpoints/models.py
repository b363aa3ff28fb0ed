"""Small pruned models that tests of folders save, and whether two are the same."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast

from lightning_prune.anatomy import Anatomy
from lightning_prune.surgery import shrink
from tests.tiny import tiny_batch, tiny_model, tiny_plan, uneven_plan

__all__ = ["assert_same_model", "even", "tokenizer", "uneven"]


def uneven(model_type: str = "llama", **overrides: Any) -> Any:
    model = tiny_model(model_type, **overrides)
    shrink(Anatomy(model), uneven_plan(model))
    return model


def even(model_type: str = "llama", **overrides: Any) -> Any:
    model = tiny_model(model_type, **overrides)
    shrink(Anatomy(model), tiny_plan(model, neuron={i: [0, 1, 2 + i] for i in range(3)}))
    return model


def assert_same_model(model: nn.Module, other: nn.Module) -> None:
    assert not other.training
    with torch.no_grad():
        torch.testing.assert_close(
            other(tiny_batch()).logits, model(tiny_batch()).logits, rtol=0, atol=0
        )


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
