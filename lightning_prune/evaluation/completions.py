"""How a model goes on after many prompts, drawn at random.

Axes: B prompts of a batch, T tokens of the longest of them, S tokens of prompt and completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lightning_prune.checks import Configured
from lightning_prune.evaluation.generation import (
    check_prompt,
    end_tokens,
    plain_settings,
    unique_share,
)
from lightning_prune.evaluation.results import Answer
from lightning_prune.progress import BlockProgress
from lightning_prune.sweep import evaluating, on_device
from lightning_prune.tokens import known_pad_token

__all__ = ["Sampling", "completions"]


class Sampling(Configured):
    """How completions are drawn.

    Args:
        temperature: what logits are divided by; 0 takes the likeliest token each time.
        top_p: draw among the likeliest tokens that have this share of the probability together.
        new_tokens: how many tokens are generated at most.
        seed: of what is drawn.
        batch_size: prompts at once.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    new_tokens: int = 50
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        warm = 0 <= self.temperature < float("inf")
        self.require("temperature", warm, "it is 0 (the likeliest token) or more")
        self.require("top_p", 0 < self.top_p <= 1, "it is in (0, 1]")
        self.require("new_tokens", self.new_tokens > 0, "it is 1 or more")
        self.require("batch_size", self.batch_size > 0, "it is 1 or more")

    @property
    def settings(self) -> dict[str, Any]:
        """As `generate` takes them."""
        if not self.temperature:
            return {"max_new_tokens": self.new_tokens, "do_sample": False}
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return {"max_new_tokens": self.new_tokens, "do_sample": True, **drawn}


@torch.no_grad()
def completions(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    sampling: Sampling | None = None,
    device: torch.device | str | None = None,
    progress: str = "",
) -> list[Answer]:
    """How a model goes on after prompts, in their order.

    Prompts of like lengths are run together, padded on the left. The same prompts, settings and
    device give the same completions, whatever was drawn before; the global random state is left
    as it was. The whole model is on the device meanwhile. The token that ends a text is no part
    of it.

    Args:
        model: a Hugging Face causal LM. Settings that it brings for `generate` are left out.
        tokenizer: its tokenizer.
        prompts: texts, tokenised as the tokenizer does by default.
        sampling: how the next token is chosen; None: as `Sampling()` does.
        device: where to run; None: where the model is.
        progress: what a bar over the batches is called; empty: there is none.

    Raises:
        ValueError: there is no prompt; or one has no token, one that the model does not have, or
            no room for the new tokens. Before the first is run.
    """
    sampling = sampling or Sampling()
    where = next(model.parameters()).device if device is None else torch.device(device)
    if not prompts:
        raise ValueError("there are no prompts to go on from; give one at least")
    rows, longest = model.get_input_embeddings().num_embeddings, _longest(model)
    for number, prompt in enumerate(prompts, 1):  # by numbers: a text may be one not to be shown
        called = f"prompt {number} of {len(prompts)}"
        check_prompt(prompt, tokenizer, sampling.new_tokens, longest, rows, called)
    ids = [tokenizer(prompt, verbose=False)["input_ids"] for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(ids[i]))
    size = sampling.batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    pad, answers = known_pad_token(tokenizer, rows), {}
    with (
        evaluating(model),
        on_device([model], where),
        plain_settings(model),
        _seeded(sampling.seed, where),
        BlockProgress(len(batches), progress, bool(progress), unit="batches") as bar,
    ):
        for number, batch in enumerate(batches, 1):
            inputs = _left_padded([ids[i] for i in batch], pad, where)
            output_BS = model.generate(**inputs, **sampling.settings, pad_token_id=pad)
            new = output_BS[:, inputs["input_ids"].shape[1] :].cpu()
            for i, new_T in zip(batch, new, strict=True):
                answers[i] = _answer(prompts[i], _until_end(new_T, end_tokens(model)), tokenizer)
            bar.advance(f"batch {number}")
    return [answers[i] for i in range(len(prompts))]


def _longest(model: Any) -> int:
    return int(model.config.max_position_embeddings)


def _left_padded(
    ids: Sequence[Sequence[int]], pad: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """A batch whose sequences end together, (B, T)."""
    longest = max(map(len, ids))
    ids_BT = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in ids])
    mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    return {"input_ids": ids_BT.to(device), "attention_mask": mask_BT.to(device)}


def _until_end(new_T: torch.Tensor, ends: set[int]) -> torch.Tensor:
    """New tokens up to the first that ends a text, and without it; padding stands behind it."""
    places = [place for place, token in enumerate(new_T.tolist()) if token in ends]
    return new_T[: places[0]] if places else new_T


def _answer(prompt: str, new_T: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> Answer:
    text = str(tokenizer.decode(new_T, skip_special_tokens=True))
    return Answer(prompt=prompt, text=text, unique=unique_share(new_T))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Meanwhile what is drawn on a device begins with a seed; afterwards all goes on as before."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if cuda else []):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, not of every device
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
