"""How fast a model runs on the device at hand, and how much memory it takes there.

Axes: B sequences of a batch, T tokens.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import psutil
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.evaluation.results import ForwardSpeed, Speed
from lightning_prune.sweep import evaluating, on_device

__all__ = ["check_numbers", "forward_speed", "generation_speed", "tokens_per_second"]

WARM_UP, RUNS = 3, 15
ENOUGH = 10.0
"""Seconds after which no further run begins: one that takes long is hardly disturbed."""
SAMPLING = 0.002  # seconds between two looks at the memory of the process


@torch.no_grad()
def tokens_per_second(
    model: nn.Module, batch: Mapping[str, torch.Tensor], device: torch.device
) -> float | None:
    """Tokens, or images, per second of a forward pass over one batch: the fastest of many runs.

    Of fifteen runs after three.

    The fastest, because other programs on the machine can only slow a run down. Of a slow model it
    is the fastest of those after the first that begin within ten seconds, one at least.

    The whole model is on the device meanwhile; None if it does not fit there.
    """
    task = Anatomy(model).task
    inputs = {name: tensor.to(device) for name, tensor in task.called_with(batch).items()}
    seconds = []
    try:
        with evaluating(model), on_device([model], device):
            for _ in range(WARM_UP + RUNS):
                _, run_seconds = _timed(lambda: model(**inputs, **task.arguments), device)
                seconds.append(run_seconds)
                if len(seconds) > 1 and sum(seconds) > ENOUGH:
                    break
    except torch.cuda.OutOfMemoryError:
        return None
    return task.amount(batch) / min(seconds[WARM_UP:] or seconds[1:])


@torch.no_grad()
def generation_speed(
    model: Any,
    device: torch.device | str | None = None,
    *,
    batch_size: int = 1,
    prompt: int = 128,
    new_tokens: int = 32,
    runs: int = 5,
    seed: int = 0,
) -> Speed:
    """Time generation with a KV cache: one pass over the prompts, then token after token.

    Prompts are random tokens, the same for every model of one vocabulary. One run warms up, then
    the median of `runs` is taken for the prompts, and of all their new tokens for a token. Memory
    is watched in a run of its own. The whole model is on the device meanwhile.

    Args:
        model: a Hugging Face causal LM.
        device: where to run; default: where the model is.
        batch_size: sequences at once.
        prompt: tokens of each prompt.
        new_tokens: tokens that are generated after each prompt.
        runs: timed runs.
        seed: of the prompts.

    Raises:
        ValueError: a number is below 1, or the model cannot take so many tokens.
    """
    longest = model.config.max_position_embeddings
    check_numbers(longest, batch_size=batch_size, prompt=prompt, new_tokens=new_tokens, runs=runs)
    device = next(model.parameters()).device if device is None else torch.device(device)
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(
        model.get_input_embeddings().num_embeddings, (batch_size, prompt), generator=generator
    ).to(device)
    with evaluating(model), on_device([model], device):
        _generate(model, ids_BT, min(new_tokens, 4), device)
        timed = [_generate(model, ids_BT, new_tokens, device) for _ in range(runs)]
        peak = _peak_bytes(lambda: _generate(model, ids_BT, new_tokens, device), device)
    return Speed(
        batch_size=batch_size,
        prompt=prompt,
        prefill_seconds=median(prefill for prefill, _ in timed),
        decode_seconds=median(token_seconds for _, decode in timed for token_seconds in decode),
        peak_bytes=peak,
    )


@torch.no_grad()
def forward_speed(
    model: Any, pixels_BCHW: torch.Tensor, device: torch.device, runs: int = 5
) -> ForwardSpeed:
    """Time forward passes over a batch of images.

    One run warms up, then the median of `runs` is taken; memory is watched in a run of its own. The
    whole model is on the device meanwhile.

    Args:
        model: an image classifier.
        pixels_BCHW: the batch.
        device: where to run.
        runs: timed runs.
    """
    pixels_BCHW = pixels_BCHW.to(device)

    def forward() -> Any:
        return model(pixel_values=pixels_BCHW)

    with evaluating(model), on_device([model], device):
        forward()
        seconds = median(_timed(forward, device)[1] for _ in range(runs))
        peak = _peak_bytes(forward, device)
    return ForwardSpeed(len(pixels_BCHW), seconds, peak)


def check_numbers(
    longest: int, *, batch_size: int, prompt: int, new_tokens: int, runs: int
) -> None:
    """Refuse what `generation_speed` cannot measure.

    Args:
        longest: how many tokens the model can take.
        batch_size: as there, and so are the others.
        prompt: tokens of each prompt.
        new_tokens: tokens that are generated.
        runs: timed runs.

    Raises:
        ValueError: a number is below 1, or the model cannot take so many tokens.
    """
    numbers = {
        "batch_size": batch_size, "prompt": prompt, "new_tokens": new_tokens, "runs": runs
    }  # fmt: skip
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number}; 1 at least")
    if prompt + new_tokens > longest:
        raise ValueError(
            f"prompt={prompt} and new_tokens={new_tokens} are {prompt + new_tokens} tokens, and "
            f"the model can take {longest}; ask for fewer"
        )


def _generate(
    model: Any, ids_BT: torch.Tensor, new_tokens: int, device: torch.device
) -> tuple[float, list[float]]:
    """Seconds for the prompts, and for each token after the first."""
    # As `generate` does: of the prompt, only the last token's logits are made.
    takes = inspect.signature(model.forward).parameters
    last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    output, prefill = _timed(lambda: model(ids_BT, use_cache=True, **last), device)
    decode = []
    for _ in range(new_tokens):
        next_BT, cache = output.logits[:, -1:].argmax(dim=-1), output.past_key_values
        forward = partial(model, next_BT, past_key_values=cache, use_cache=True)
        output, token_seconds = _timed(forward, device)
        decode.append(token_seconds)
    return prefill, decode


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    _synchronize(device)
    start = time.perf_counter()
    result = work()
    _synchronize(device)
    return result, time.perf_counter() - start


def _peak_bytes(work: Callable[[], Any], device: torch.device) -> int | None:
    """The most memory that was in use while `work` ran."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        work()
        return None
    process, done, seen = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(SAMPLING):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
        seen.append(process.memory_info().rss)
    finally:
        done.set()
        watcher.join()
    return max(seen)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
