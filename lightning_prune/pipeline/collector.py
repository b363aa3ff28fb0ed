"""What a method, its allocation and its repair ask to know of a model, from the sweeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.evidence import Evidence, Propagate, moved
from lightning_prune.methods.base import Method
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.progress import BlockProgress
from lightning_prune.sweep import Collected, HiddenStates, Placement, collect, go_back_again, visit

__all__ = ["Collector"]


class Collector:
    """Runs the sweeps of one method.

    Args:
        method: what is asked.
        blocks: the blocks that the method works on.
        placement: where their weights are.
        states: the calibration set; None if nothing is calibrated.
        reuse: what earlier calls on the same dense model have collected.
    """

    def __init__(
        self,
        method: Method,
        blocks: Sequence[Block],
        placement: Placement,
        states: HiddenStates | None,
        reuse: Reuse | None,
    ) -> None:
        self.method, self.blocks, self.placement = method, blocks, placement
        self.states, self.reuse = states, reuse

    def importance(self) -> list[float]:
        """Of each block, or of each site, by what the allocation asks for; empty if nothing."""
        allocation = self.method.effective_allocation
        known = self.reuse.importance if self.reuse is not None else {}
        key = (allocation.identity, *_names(self.blocks))
        if key not in known:
            known[key] = self._importance()
        return known[key]

    def _importance(self) -> list[float]:
        allocation = self.method.effective_allocation
        if allocation.evidence is None:
            indices = [block.index for block in self.blocks]
            return allocation.known_importance(indices, len(self.placement.anatomy.blocks))
        importance: list[float] = []
        label = type(allocation).__name__
        with self.collected(allocation.evidence, self.blocks, "none", label) as steps:
            for block, evidence in steps:
                importance += allocation.measured(block, evidence)
        return importance

    def sharing(self, kinds: Sequence[Evidence]) -> AbstractContextManager[None]:
        """Context in which sweeps for several kinds of evidence share what they can."""
        if self.states is None or not go_back_again(kinds):
            return nullcontext()
        return self.states.sharing_inputs()

    @contextmanager
    def collected(
        self,
        evidence: Evidence | None,
        blocks: Sequence[Block],
        propagate: Propagate,
        label: str = "",
        known: Collection[int] = (),
    ) -> Iterator[Collected]:
        """Context with an iterator over blocks, each with its evidence; shows how far it is.

        When the context ends, after an error too, blocks and hooks are back where they were.

        Args:
            evidence: what to collect; None: blocks are visited, with nothing.
            blocks: which, with the sites that matter.
            propagate: which changes, made between two steps, the evidence sees.
            label: what to call it; the method's name if nothing is said.
            known: indices of blocks to pass by with nothing collected, as of `collect`.
        """
        name = label or type(self.method).__name__
        with (
            BlockProgress(len(blocks), name, enabled=distributed.rank() == 0) as progress,
            closing(self._steps(evidence, blocks, propagate, known)) as steps,
            closing(_shown(steps, blocks, progress)) as shown,
        ):
            yield shown

    def _steps(
        self,
        evidence: Evidence | None,
        blocks: Sequence[Block],
        propagate: Propagate,
        known: Collection[int],
    ) -> Collected:
        if evidence is None:
            return visit(self.placement, blocks)
        assert self.states is not None, "asked for calibration by a method that has none"
        if self.reuse is None or propagate != "none" or evidence.sweep != "forward":
            return collect(self.states, evidence, blocks, propagate, known)
        return self._reused(self.states, evidence, blocks, self.reuse)

    def _reused(
        self,
        states: HiddenStates,
        evidence: Evidence,
        blocks: Sequence[Block],
        reuse: Reuse,
    ) -> Collected:
        """A sweep over the dense model, or what an earlier one has collected."""
        key = (repr(evidence), *_names(blocks))
        if key in reuse.evidence:
            for block, kept in zip(blocks, reuse.evidence[key], strict=True):
                with self.placement.block(block):
                    device = self.placement.device
                    yield block, {name: moved(value, device) for name, value in kept.items()}
            return
        seen: list[Mapping[str, Any]] = []
        with closing(collect(states, evidence, blocks, "none")) as steps:
            for block, results in steps:
                seen.append({name: moved(value, "cpu") for name, value in results.items()})
                yield block, results
        reuse.evidence[key] = seen


def _shown(steps: Collected, blocks: Sequence[Block], progress: BlockProgress) -> Collected:
    """The same steps; the progress advances when all sites of a block have been through."""
    left = {block.index: len(block.sites) for block in blocks}
    for block, evidence in steps:
        yield block, evidence
        left[block.index] -= len(block.sites)
        if left[block.index] <= 0:
            progress.advance(block.name)


def _names(blocks: Sequence[Block]) -> tuple[str, ...]:
    return tuple(site.name for block in blocks for site in block.sites)
