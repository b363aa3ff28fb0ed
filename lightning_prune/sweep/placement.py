"""Moving modules to the device and back, and running a model with its blocks switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["evaluating", "home_device", "move", "on_device", "replaced_forward"]


def home_device(module: nn.Module) -> torch.device:
    """Where a module's first parameter (or buffer) lies; the CPU if it has none."""
    tensor = next(module.parameters(), next(module.buffers(), torch.empty(0)))
    return tensor.device


@contextmanager
def on_device(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Keep modules on `device` inside the block, and take each back to where it was."""
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
        for module, own in zip(modules, before, strict=True):
            module.__dict__.pop("forward", None)
            if own is not None:
                module.forward = own


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
