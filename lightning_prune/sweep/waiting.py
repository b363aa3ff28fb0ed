"""Calls of a block that wait at each of its inputs and can be gone on with.

Each batch runs through the block in a greenlet of its own, which is left in the middle of the
block's forward and entered again later. So a block runs once, and can still be changed between one
of its inputs and the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from torch import nn

from lightning_prune.anatomy import Block
from lightning_prune.sweep.states import HiddenStates

__all__ = ["Waiting"]

_Modes = tuple[bool, dict[str, tuple[bool, torch.dtype]]]


class Waiting:
    """One call of a block for each batch. A context; behind it no hook and no call is left.

    Args:
        states: the calibration set in front of the block.
        block: the block, on the device, with the sites at whose inputs the calls wait.
        adding: modules whose outputs are to be noted.
    """

    def __init__(
        self,
        states: HiddenStates,
        block: Block,
        adding: Sequence[nn.Module] = (),
    ) -> None:
        self.block = block
        self._calls = [_Call(states, block, i) for i in states.indices]
        self._adding = adding
        self._running = -1
        self._added: list[torch.Tensor | None] = [None] * len(self._calls)
        self._hooks = ExitStack()

    def __enter__(self) -> Waiting:
        for name, sites in self.block.inputs().items():
            handle = sites[0].module.register_forward_pre_hook(_wait(name))
            self._hooks.callback(handle.remove)
        for module in self._adding:
            self._hooks.callback(module.register_forward_hook(self._note).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        for call in self._calls:
            call.leave()

    def until(self, name: str, index: int) -> torch.Tensor:
        """Let one batch go on until it waits at the input `name`, and return what it brings.

        Raises:
            RuntimeError: it does not come there next.
        """
        arrived = self._resume(index)
        if not isinstance(arrived, tuple) or arrived[0] != name:
            raise RuntimeError(
                f"batch {index} does not pass {name} of {self.block.name} in its turn, so that its "
                "sites cannot be pruned one after the other. Use propagate='block'."
            )
        return arrived[1]

    def output(self, index: int) -> torch.Tensor:
        """Let one batch go on to the end of the block."""
        output = self._resume(index)
        assert isinstance(output, torch.Tensor), f"{self.block.name} waits behind its last input"
        return output

    def added(self, index: int) -> torch.Tensor | None:
        """What the adding sites gave for a batch since this was last asked; None: nothing."""
        added, self._added[index] = self._added[index], None
        return added

    def _resume(self, index: int) -> Any:
        self._running = index
        return self._calls[index].resume()

    def _note(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        before = self._added[self._running]
        flat = output.flatten(0, -2)  # some families (OPT) do so themselves before the MLP
        self._added[self._running] = flat if before is None else before + flat


class _Call:
    """One batch on its way through a block."""

    def __init__(self, states: HiddenStates, block: Block, index: int) -> None:
        self._greenlet = greenlet(lambda: states.run(block, index, states.entering(index)))
        self._modes: _Modes | None = None

    @torch.no_grad()
    def resume(self) -> Any:
        """Go on, and return (input name, tensor) where it waits next, or the block's output."""
        outside = _modes()
        self._greenlet.parent = getcurrent()
        _set_modes(self._modes or outside)
        try:
            return self._greenlet.switch()
        finally:
            self._modes = _modes()
            _set_modes(outside)

    def leave(self) -> None:
        """End the call where it waits: its own `finally` clauses run."""
        if self._greenlet and not self._greenlet.dead:
            outside = _modes()
            self._greenlet.parent = getcurrent()
            self._greenlet.throw(GreenletExit)
            _set_modes(outside)


def _wait(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        getcurrent().parent.switch((name, inputs[0]))

    return hook


# Torch keeps these for the thread. A block may be left in the middle of a context that sets them,
# and the calls of other batches must not find them there.
def _modes() -> _Modes:
    devices = ("cpu", "cuda")
    autocast = {d: (torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices}
    return torch.is_grad_enabled(), autocast


def _set_modes(modes: _Modes) -> None:
    grad, autocast = modes
    torch.set_grad_enabled(grad)
    for device, (enabled, dtype) in autocast.items():
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
