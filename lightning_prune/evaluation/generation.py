"""What a model says.

Axes: B sequences (one), T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lightning_prune.sweep import evaluating, on_device

__all__ = ["continuation"]


@torch.no_grad()
def continuation(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt_T: torch.Tensor,
    device: torch.device,
    tokens: int = 32,
) -> str | None:
    """How a model goes on after a prompt, taking the likeliest token each time, with its KV cache.

    The whole model is on the device meanwhile; None if it does not fit there.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        prompt_T: token ids of the prompt.
        device: where to run.
        tokens: how many tokens to generate at most.
    """
    ids_BT = prompt_T[None].to(device)
    pad = tokenizer.pad_token_id
    try:
        with evaluating(model), on_device([model], device):
            output_BT = model.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0 if pad is None else pad,
            )
    except torch.cuda.OutOfMemoryError:
        return None
    return str(tokenizer.decode(output_BT[0, ids_BT.shape[1] :], skip_special_tokens=True))
