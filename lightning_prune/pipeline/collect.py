"""What a method and its allocation ask to know of a model, from the sweeps that can tell it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch

from lightning_prune import distributed
from lightning_prune.allocation import Allocation
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence import INFLUENCE, GradientEvidence, InputEvidence, moved
from lightning_prune.evidence.objective import Objective
from lightning_prune.method import Method
from lightning_prune.progress import BlockProgress
from lightning_prune.reuse import Reuse
from lightning_prune.sweep import (
    HiddenStates,
    Order,
    forward_sweep,
    gradient_sweep,
    influence_sweep,
    on_device,
    removal_sweep,
    trial_sweep,
)

__all__ = ["Collector"]

Found = Generator[tuple[Block, Mapping[str, Any]], None, None]


class Collector:
    """Runs the sweeps of one method.

    Args:
        anatomy: of the model.
        method: what is asked.
        blocks: the blocks that the method works on.
        states: the calibration set in front of block 0; None if nothing is calibrated.
        device: where blocks run.
        reuse: what earlier calls on the same dense model have found.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        method: Method,
        blocks: Sequence[Block],
        states: HiddenStates | None,
        device: torch.device,
        reuse: Reuse | None,
    ) -> None:
        self.anatomy, self.method, self.blocks = anatomy, method, blocks
        self._states, self.device, self.reuse = states, device, reuse

    @property
    def states(self) -> HiddenStates:
        """The calibration set, of a method that calibrates."""
        assert self._states is not None, "asked for calibration by a method that has none"
        return self._states

    # --- for the allocation ---

    def importance(self) -> list[float]:
        """Of each block, or of each site, by what the allocation asks for; empty if nothing."""
        allocation = self.method.effective_allocation
        known = self.reuse.importance if self.reuse is not None else {}
        key = (allocation.identity, *self._names())
        if key not in known:
            known[key] = self._importance(allocation)
        return known[key]

    def _importance(self, allocation: Allocation) -> list[float]:
        if not allocation.calibrates:
            indices = [block.index for block in self.blocks]
            return allocation.known_importance(indices, len(self.anatomy.blocks))
        importance: list[float] = []
        start = list(self.states.hidden)
        with self._progress(type(allocation).__name__) as progress:
            for block, values in self._important(allocation):
                importance += values
                progress.advance(block.name)
        self.states.rewind(start)
        return importance

    def _important(self, allocation: Allocation) -> Iterator[tuple[Block, list[float]]]:
        if allocation.measure is not None:
            windows = allocation.windows
            for block, value in self._measured(allocation.measure, windows, "block", 1):
                yield block, [value]
            return
        assert allocation.evidence is not None
        if allocation.windows:
            with closing(
                trial_sweep(
                    self.states,
                    allocation.evidence,
                    allocation.damaged,
                    self.blocks,
                    allocation.windows,
                )
            ) as trials:
                yield from trials
            return
        with closing(forward_sweep(self.states, allocation.evidence, self.blocks, "none")) as sweep:
            for block, found in sweep:
                yield block, [allocation.importance(block, found)]

    # --- for the method ---

    def evidence(self, objective: Objective | None = None, label: str = "") -> Found:
        """Yield each block with its evidence, and show how far it is.

        Args:
            objective: with gradient evidence: of what the gradients are taken.
            label: what to call it; the method's name if nothing is said.
        """
        left = {block.index: len(block.sites) for block in self.blocks}
        with (
            self._progress(label or type(self.method).__name__) as progress,
            closing(self._evidence(objective)) as sweep,
        ):
            for block, evidence in sweep:
                yield block, evidence
                left[block.index] -= len(block.sites)
                if not left[block.index]:
                    progress.advance(block.name)

    def measured(self) -> Iterator[tuple[Block, float]]:
        """Yield each block with its influence, as the method measures it."""
        method = self.method
        assert method.influence is not None
        with self._progress(type(method).__name__) as progress:
            for block, value in self._measured(
                method.influence, method.windows, method.part, method.span(self.anatomy)
            ):
                yield block, value
                progress.advance(block.name)

    def repair(self, parts: Sequence[Block]) -> Found:
        """Yield each input of each part with what the repair asks for, in the order they run."""
        evidence = self.method.effective_repair.evidence
        assert evidence is not None
        left = {part.index: len(part.sites) for part in parts}
        with (
            self._progress(type(self.method.effective_repair).__name__, len(parts)) as progress,
            closing(forward_sweep(self.states, evidence, parts, "linear")) as sweep,
        ):
            for part, found in sweep:
                yield part, found
                left[part.index] -= len(part.sites)
                if not left[part.index]:
                    progress.advance(part.name)

    def _measured(
        self, measure: str, windows: int, part: Any, span: int
    ) -> Iterator[tuple[Block, float]]:
        if measure == "removal":
            return removal_sweep(self.states, self.blocks, windows, part)
        return influence_sweep(self.states, INFLUENCE[measure], self.blocks, span, part)

    def _evidence(self, objective: Objective | None) -> Found:
        kind = self.method.evidence
        if kind is None:
            for block in self.blocks:
                with on_device([block.module], self.device):
                    yield block, {}
        elif issubclass(kind, GradientEvidence):
            assert objective is not None
            yield from gradient_sweep(self.states, kind, self.blocks, objective)
        else:
            order = "none" if self.method.survey else self.method.order
            yield from self._forward(kind, order)

    def _forward(self, kind: type[InputEvidence], order: Order) -> Found:
        """A forward sweep, or what an earlier one over the dense model has found."""
        if self.reuse is None or order != "none":
            yield from forward_sweep(self.states, kind, self.blocks, order)
            return
        key = (kind.__name__, *self._names())
        if key in self.reuse.evidence:
            for block, evidence in zip(self.blocks, self.reuse.evidence[key], strict=True):
                with on_device([block.module], self.device):
                    yield block, evidence
            return
        seen: list[Mapping[str, Any]] = []
        for block, evidence in forward_sweep(self.states, kind, self.blocks, order):
            seen.append({name: moved(value, "cpu") for name, value in evidence.items()})
            yield block, evidence
        self.reuse.evidence[key] = seen

    def _progress(self, name: str, blocks: int = 0) -> BlockProgress:
        return BlockProgress(blocks or len(self.blocks), name, enabled=distributed.rank() == 0)

    def _names(self) -> tuple[str, ...]:
        return tuple(site.name for block in self.blocks for site in block.sites)
