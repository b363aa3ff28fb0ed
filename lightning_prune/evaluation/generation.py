"""What a model says.

Axes: B sequences (one), T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from lightning_prune.evaluation.results import Answer
from lightning_prune.sweep import evaluating, on_device
from lightning_prune.tokens import check_known

__all__ = [
    "check_prompt",
    "check_room",
    "continuation",
    "end_tokens",
    "plain_settings",
    "unique_share",
]


def unique_share(tokens_T: torch.Tensor) -> float:
    """Different tokens over tokens, in (0, 1]; 0 of no tokens.

    Source: the response uniqueness rate (RUR) by which SparC3 (arXiv 2506.13727) tells repetition:
    at 0.5 or below a response counts as repetitive.
    """
    return len(tokens_T.unique()) / len(tokens_T) if len(tokens_T) else 0.0


def check_prompt(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    new_tokens: int,
    longest: int,
    vocabulary: int | None = None,
    called: str = "",
) -> None:
    """Refuse a prompt that a model cannot go on from.

    Args:
        prompt: a text.
        tokenizer: the model's tokenizer.
        new_tokens: how many tokens are to be generated.
        longest: how many tokens the model can take.
        vocabulary: how many different ones it has; None: that is not known.
        called: what messages call the prompt; empty: by how it begins.

    Raises:
        ValueError: the prompt has no token, or one that the model does not have, or there is no
            room for it and the new tokens.
    """
    ids = tokenizer(prompt, verbose=False).input_ids
    called = called or f"prompt {prompt[:40]!r}"
    if not ids:
        raise ValueError(f"the {called} has no token; give some text")
    if vocabulary is not None:
        check_known(torch.tensor(ids), vocabulary, tokenizer, called)
    check_room(len(ids), new_tokens, longest, f"the {called}")


def check_room(tokens: int, new_tokens: int, longest: int, prompt: str = "the prompt") -> None:
    """Refuse more tokens than a model has positions for.

    Args:
        tokens: of the prompt.
        new_tokens: how many are to be generated.
        longest: how many the model can take.
        prompt: what a message calls it.

    Raises:
        ValueError: they are too many together.
    """
    if tokens + new_tokens > longest:
        raise ValueError(
            f"{prompt} has {tokens} tokens; with {new_tokens} new tokens these are "
            f"{tokens + new_tokens}, and the model can take {longest}; ask for fewer"
        )


@torch.no_grad()
def continuation(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | torch.Tensor,
    device: torch.device,
    tokens: int = 32,
) -> Answer | None:
    """How a model goes on after a prompt, taking the likeliest token each time, with its KV cache.

    The whole model is on the device meanwhile; None if it does not fit there. The token that ends a
    text is no part of the answer.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        prompt: a text, tokenised as the tokenizer does by default, or token ids (T,).
        device: where to run.
        tokens: how many tokens to generate at most.

    Raises:
        ValueError: the prompt has no token, or one that the model does not have.
    """
    ids_T = (
        tokenizer(prompt, return_tensors="pt").input_ids[0] if isinstance(prompt, str) else prompt
    )
    if not len(ids_T):
        raise ValueError(f"the prompt {prompt!r} has no token; give some text")
    check_known(ids_T, model.get_input_embeddings().num_embeddings, tokenizer, "prompt")
    ids_BT = ids_T.long()[None].to(device)
    pad = tokenizer.pad_token_id
    try:
        with evaluating(model), on_device([model], device), plain_settings(model):
            output_BT = model.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0 if pad is None else pad,
            )
    except torch.cuda.OutOfMemoryError:
        return None
    new_T = output_BT[0, ids_BT.shape[1] :]
    if len(new_T) and int(new_T[-1]) in end_tokens(model):  # saying that it ends says nothing
        new_T = new_T[:-1]
    return Answer(
        prompt=prompt if isinstance(prompt, str) else str(tokenizer.decode(ids_T)),
        text=str(tokenizer.decode(new_T, skip_special_tokens=True)),
        unique=unique_share(new_T),
    )


@contextmanager
def plain_settings(model: Any) -> Iterator[None]:
    """Meanwhile a model has no opinion on how to generate, but for its special tokens.

    Many come with a repetition penalty or a temperature, which `generate` adds to what is
    asked for.
    """
    before = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(before, name) for name in names})
    try:
        yield
    finally:
        model.generation_config = before


def end_tokens(model: Any) -> set[int]:
    """The tokens at which `generate` stops: none, one or several."""
    ends = model.generation_config.eos_token_id
    return set() if ends is None else set(ends) if isinstance(ends, list) else {ends}
