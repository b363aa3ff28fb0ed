"""What keeping zeros costs: a step of dense recovery, and a step of LoRA, with masks and without.

    python benchmarks/keep_zeros.py
    python benchmarks/keep_zeros.py --hidden 1024 --blocks 8 --windows 8 --tokens 128

A random Llama of about 50M parameters, half of the weights of its blocks masked, on batches of 8 x
128 tokens. The variants take turns in one process, and the ratio is that of their median steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_prune.anatomy import Anatomy
from lightning_prune.models import LoRA
from lightning_prune.models.optimization import adamw
from lightning_prune.models.recovery.zeros import KeepMasks
from lightning_prune.plan import Plan
from lightning_prune.surgery import apply_masks


def model_of(arguments: argparse.Namespace) -> tuple[LlamaForCausalLM, Plan]:
    """A random model, half of the weights of its blocks masked, and the plan that says so."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 11 // 4,
        num_hidden_layers=arguments.blocks,
        num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=arguments.hidden // 128,
        tie_word_embeddings=True,
    )
    model, plan = LlamaForCausalLM(config), Plan()
    for block in Anatomy(model).blocks:
        for site in block.sites:
            plan.set_mask(site.weight_name, torch.rand(site.module.weight.shape) < 0.5)
    apply_masks(model, plan)
    return model, plan


def stepper(model: nn.Module, tokens_BT: torch.Tensor, plan: Plan | None) -> Callable[[], None]:
    """One step of training; with a plan, its zeros are kept."""
    model.train()
    optimizer = adamw(model, 1e-5, 0.1)
    if plan is not None:
        KeepMasks(model, plan, [optimizer])

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss.backward()
        optimizer.step()

    return step


def medians(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Seconds of each step, in turns; the first turn does not count. On a CPU, processor time."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, plan = model_of(arguments)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f}M parameters, {device}")
    tokens_BT = torch.randint(0, 8192, (arguments.windows, arguments.tokens), device=device)

    def copied() -> Any:
        clone: Any = copy.deepcopy(model)
        return clone.to(device)

    dense = {
        "plain": stepper(copied(), tokens_BT, None),
        "kept": stepper(copied(), tokens_BT, plan),
    }
    lora = {
        "plain": stepper(LoRA(r=16).attach(copied()), tokens_BT, None),
        "kept": stepper(LoRA(r=16).attach(copied(), plan), tokens_BT, None),
    }
    for name, steps in (("all weights", dense), ("LoRA", lora)):
        times = medians(steps, arguments.repeats)
        ratio = times["kept"] / times["plain"]
        print(
            f"{name}: {times['plain']:.3f} s plain, {times['kept']:.3f} s kept, ratio {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
