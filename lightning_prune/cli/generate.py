"""`lightning-prune generate PATH --prompt …`: what a saved model writes."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from lightning_prune.checkpoints.load import check_stored, load
from lightning_prune.cli.arguments import Parser, device, known_model
from lightning_prune.evaluation import check_room, plain_settings
from lightning_prune.models.loading import Source
from lightning_prune.tokens import check_known

__all__ = ["NAME", "run"]

NAME = "generate"


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    given = _parser().parse_args(arguments)
    if given.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens {given.max_new_tokens}: give 1 or more")
    if not 0 <= given.temperature < math.inf:
        raise ValueError(f"--temperature {given.temperature}: give 0 (greedy) or more")
    folder = known_model(given.path)
    source = Source(folder)
    check_stored(Path(folder), verify=not given.no_verify)
    tokenizer = source.tokenizer()
    if tokenizer is None:
        raise ValueError(f"{given.path} has no tokenizer, and a prompt needs one; add its files")
    inputs = _inputs(tokenizer, given).to(given.device)
    config = source.config()
    check_known(inputs["input_ids"], config.vocab_size, tokenizer, "prompt")
    longest = config.max_position_embeddings
    check_room(inputs["input_ids"].shape[1], given.max_new_tokens, longest)
    model: Any = load(folder, given.dtype, given.device, verify=False)
    torch.manual_seed(given.seed)
    with torch.inference_mode(), plain_settings(model):
        output = model.generate(**inputs, generation_config=_settings(model, tokenizer, given))
    new = output[0, inputs["input_ids"].shape[1] :]
    text = str(tokenizer.decode(new, skip_special_tokens=True))
    sys.stdout.write(text if given.chat else given.prompt + text)
    sys.stdout.write("\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"lightning-prune {NAME}",
        description="Let a saved model write on from a prompt, or answer it.",
    )
    parser.add_argument("path", help="a Hugging Face folder with safetensors, even or uneven")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--chat", action="store_true", help="use the tokenizer's chat template")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default: greedy")
    parser.add_argument("--seed", type=int, default=0, help="for a temperature above 0")
    dtypes = ("auto", "float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=dtypes, default="auto")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=best, help=f"default here: {best}")
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the folder with its checksums"
    )
    return parser


def _inputs(tokenizer: Any, given: argparse.Namespace) -> Any:
    if not given.chat:
        inputs = tokenizer(given.prompt, return_tensors="pt")
        if not inputs["input_ids"].shape[1]:
            raise ValueError("the prompt is empty, and this tokenizer begins no text by itself")
        return inputs
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer in {given.path} has no chat template; leave --chat out")
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": given.prompt}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )


def _settings(model: Any, tokenizer: Any, given: argparse.Namespace) -> GenerationConfig:
    """What was asked for, and nothing of the model's own but its special tokens."""
    own = model.generation_config
    settings = GenerationConfig(
        max_new_tokens=given.max_new_tokens,
        do_sample=given.temperature > 0,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else tokenizer.pad_token_id,
    )
    if given.temperature > 0:
        settings.temperature, settings.top_k, settings.top_p = given.temperature, 0, 1.0
    return settings
