"""What the tests of the sweep share: padded batches, traces of a model, and its hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.sweep import HiddenStates, InMemory
from tests.tiny import tiny_batch, tiny_model

CPU = torch.device("cpu")


@cache
def shared_model(model_type: str) -> nn.Module:
    """One tiny model for all tests that only read it."""
    return tiny_model(model_type)


def padded(side: str, batch: int = 3, tokens: int = 14) -> dict[str, torch.Tensor]:
    """A batch with 0, 3, 6, … padded tokens on one side ("none": no mask at all)."""
    ids_BT = tiny_batch(batch, tokens)
    if side == "none":
        return {"input_ids": ids_BT}
    lengths_B1 = tokens - 3 * torch.arange(batch)[:, None]
    place_T = torch.arange(tokens)
    keep_BT = place_T < lengths_B1 if side == "right" else place_T >= tokens - lengths_B1
    return {"input_ids": ids_BT.masked_fill(~keep_BT, 0), "attention_mask": keep_BT.long()}


def split(batch: dict[str, torch.Tensor], size: int) -> list[dict[str, torch.Tensor]]:
    """The same sequences in batches of `size`."""
    parts = {name: tensor.split(size) for name, tensor in batch.items()}
    return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]


def tokens_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """True where a token is no padding, (B, T)."""
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()


def states_of(
    model: nn.Module, batches: Iterable[dict[str, torch.Tensor]], offload: bool = False
) -> HiddenStates:
    """The hidden states of batches, of a model in the CPU's memory."""
    anatomy = Anatomy(model)
    return HiddenStates(anatomy, batches, InMemory(anatomy, CPU), offload)


@torch.no_grad()
def block_inputs(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The hidden states in front of every block in the model's own forward."""
    seen: list[torch.Tensor] = []
    handles = [
        block.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        for block in Anatomy(model).blocks
    ]
    model(**batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def traces(model: nn.Module) -> dict[str, Any]:
    """Everything about the modules that a sweep could leave behind."""
    return {
        name: (
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            "forward" in module.__dict__,
            module.training,
        )
        for name, module in model.named_modules()
    }


@contextmanager
def counting_blocks(model: nn.Module) -> Iterator[list[int]]:
    """The indices of the blocks that really ran, in their order."""
    ran: list[int] = []
    handles = []
    for block in Anatomy(model).blocks:
        attention = block.module.get_submodule(block.family.attention)

        def note(*_: Any, index: int = block.index) -> None:
            ran.append(index)

        handles.append(attention.register_forward_hook(note))
    yield ran
    for handle in handles:
        handle.remove()


@contextmanager
def breaking(module: nn.Module) -> Iterator[None]:
    """Context in which a module raises RuntimeError("broken layer") when it is called."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("broken layer")

    handle = module.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()
