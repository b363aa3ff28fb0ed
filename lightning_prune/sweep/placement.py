"""Where the weights of a model live, and how they come to the device that runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Block

__all__ = [
    "InMemory",
    "Placement",
    "evaluating",
    "home_device",
    "move",
    "on_device",
    "replaced_forward",
]


class Placement(ABC):
    """Where the weights of a model's blocks live, and where they run.

    Sweeps ask it for the blocks that they run; nothing else moves weights.

    Args:
        anatomy: of the model.
        device: where blocks run.
    """

    def __init__(self, anatomy: Anatomy, device: torch.device) -> None:
        self.anatomy, self.device = anatomy, device

    @abstractmethod
    def blocks(self, blocks: Sequence[Block]) -> AbstractContextManager[None]:
        """Context in which blocks, with all their weights, are on the device.

        What is changed in them stays changed. The head counts as a block.
        """

    @abstractmethod
    def outside(self) -> AbstractContextManager[None]:
        """Context in which embeddings, final norm and head are on the device."""

    @abstractmethod
    def bytes_missing(self) -> int:
        """Bytes that the blocks' weights would take on the device, beyond those that are there."""

    @contextmanager
    def block(self, block: Block) -> Iterator[Block]:
        """Context in which one block is on the device."""
        with self.blocks([block]):
            yield block


class InMemory(Placement):
    """The whole model is in memory, as a rule the CPU's; a block moves to the device and back."""

    @contextmanager
    def blocks(self, blocks: Sequence[Block]) -> Iterator[None]:
        """Move them, and take each back to where it was."""
        modules = []
        for block in blocks:
            is_head = block.index == len(self.anatomy.blocks)
            modules += self.anatomy.outside if is_head else [block.module]
        with on_device(modules, self.device):
            yield

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Move what is no block, and take it back."""
        with on_device(self.anatomy.outside, self.device):
            yield

    def bytes_missing(self) -> int:
        """Those of blocks that are elsewhere."""
        return sum(
            parameter.numel() * parameter.element_size()
            for block in self.anatomy.blocks
            for parameter in block.module.parameters()
            if parameter.device != self.device
        )


@contextmanager
def on_device(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Context in which whole modules are on a device; each is taken back to where it was."""
    homes = [(module, home_device(module)) for module in modules]
    try:
        for module, home in homes:
            if home != device:
                module.to(device)
        yield
    finally:
        for module, home in homes:
            if home != device:
                module.to(home)


def home_device(module: nn.Module) -> torch.device:
    """Where a module's first parameter (or buffer) lies; the CPU if it has none."""
    tensor = next(module.parameters(), next(module.buffers(), torch.empty(0)))
    return tensor.device


@contextmanager
def replaced_forward(
    modules: Iterable[nn.Module], forward: Callable[[int], Callable[..., Any]]
) -> Iterator[None]:
    """Run `forward(i)` in place of the i-th module's own forward, inside the block."""
    modules = list(modules)
    # Others (accelerate, for one) replace forwards too, and want theirs back.
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for i, module in enumerate(modules):
            module.forward = forward(i)
        yield
    finally:
        for module, replaced in zip(modules, before, strict=True):
            module.__dict__.pop("forward", None)
            if replaced is not None:
                module.forward = replaced


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block; every module then gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def move(value: Any, device: torch.device) -> Any:
    """Move every tensor in nested tuples, lists and dicts to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, (tuple, list)):
        return type(value)(move(item, device) for item in value)
    if isinstance(value, dict):
        return {key: move(item, device) for key, item in value.items()}
    return value
