"""`lightning-prune generate PATH --prompt …`: what a saved model writes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from lightning_prune.checkpoints.load import check_stored, load
from lightning_prune.commands.arguments import model_folder, usable_device
from lightning_prune.commands.quiet import quiet_loading
from lightning_prune.commands.sparse import sparse_or_dense, thresholds_for
from lightning_prune.evaluation import check_room, plain_settings
from lightning_prune.models.loading import DType, Source
from lightning_prune.tokens import check_known

__all__ = ["generate"]


@quiet_loading()
def generate(
    path: str,
    *,
    prompt: str,
    chat: bool = False,
    new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    thresholds: str | None = None,
    dtype: DType = "auto",
    device: str | None = None,
    verify: bool = True,
) -> None:
    """Let a saved model write on from a prompt, or answer it.

    Args:
        path: a Hugging Face folder with safetensors, even or uneven, or "quickstart".
        prompt: the text to go on from.
        chat: use the tokenizer's chat template.
        new_tokens: how many tokens are generated at most.
        temperature: 0 takes the likeliest token each time.
        seed: for a temperature above 0.
        thresholds: a file of `analyze activations`, or "saved" for activation_thresholds.json in
            the model's folder: its activations are cut by them.
        dtype: of the weights.
        device: where to run; None: a GPU if there is one.
        verify: compare the folder with its checksums.

    Raises:
        FileNotFoundError: there is no such model, or file of thresholds.
        ValueError: a number is out of range, the files are damaged, the thresholds are another
            model's, or there is no tokenizer or chat template.
    """
    if new_tokens < 1:
        raise ValueError(f"new_tokens={new_tokens}; give 1 or more")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature}; give 0 (greedy) or more")
    where = usable_device(device)
    folder = model_folder(path)
    source = Source(folder)
    config = source.config()
    check_stored(Path(folder), verify=verify)
    tokenizer = source.tokenizer()
    if tokenizer is None:
        raise ValueError(f"{path} has no tokenizer, and a prompt needs one; add its files")
    if chat and not tokenizer.chat_template:
        raise ValueError(f"the tokenizer in {path} has no chat template; leave --chat out")
    inputs = _inputs(tokenizer, prompt, chat).to(where)
    check_known(inputs["input_ids"], config.vocab_size, tokenizer, "prompt")
    length = inputs["input_ids"].shape[1]
    check_room(length, new_tokens, config.max_position_embeddings)
    limits = None if thresholds is None else thresholds_for(source, thresholds)
    model: Any = load(folder, dtype, where, verify=False)
    settings = _settings(model, tokenizer, new_tokens, temperature)
    torch.manual_seed(seed)
    with torch.inference_mode(), plain_settings(model), sparse_or_dense(model, limits) as sparse:
        output = model.generate(**inputs, generation_config=settings)
    text = str(tokenizer.decode(output[0, length:], skip_special_tokens=True))
    sys.stdout.write(text if chat else prompt + text)
    sys.stdout.write("\n")
    if sparse is not None:
        needed = "" if sparse.unread is None else f"{sparse.unread:.1%} of the weights not needed. "
        sys.stderr.write(f"Activations cut: {needed}{sparse.note}\n")


def _inputs(tokenizer: Any, prompt: str, chat: bool) -> Any:
    if chat:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
    inputs = tokenizer(prompt, return_tensors="pt")
    if not inputs["input_ids"].shape[1]:
        raise ValueError("the prompt is empty, and this tokenizer begins no text by itself")
    return inputs


def _settings(model: Any, tokenizer: Any, new_tokens: int, temperature: float) -> GenerationConfig:
    """What was asked for, and nothing of the model's own but its special tokens."""
    defaults = model.generation_config
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=temperature > 0,
        bos_token_id=defaults.bos_token_id,
        eos_token_id=defaults.eos_token_id
        if defaults.eos_token_id is not None
        else tokenizer.eos_token_id,
        pad_token_id=defaults.pad_token_id
        if defaults.pad_token_id is not None
        else tokenizer.pad_token_id,
    )
    if temperature > 0:
        settings.temperature, settings.top_k, settings.top_p = temperature, 0, 1.0
    return settings
