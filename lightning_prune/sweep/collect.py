"""From evidence to the sweep that collects it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from typing import Any

from lightning_prune.anatomy import Block
from lightning_prune.evidence import Evidence, Propagate, moved
from lightning_prune.sweep.backward import gradient_sweep
from lightning_prune.sweep.forward import forward_sweep
from lightning_prune.sweep.influence import influence_sweep
from lightning_prune.sweep.paired import paired_sweep
from lightning_prune.sweep.placement import Placement
from lightning_prune.sweep.removal import removal_sweep
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.trial import trial_sweep

__all__ = ["RESUMED", "Collected", "collect", "go_back_again", "visit"]

Collected = Generator[tuple[Block, dict[str, Any]], None, None]

_SWEEPS: dict[str, Callable[..., Any]] = {
    "forward": forward_sweep,
    "paired": paired_sweep,
    "backward": gradient_sweep,
    "influence": influence_sweep,
    "removal": removal_sweep,
    "trial": trial_sweep,
}


RESUMED = ("forward", "paired")
"""The sweeps that can leave out what is known of some blocks."""


def collect(
    states: HiddenStates,
    evidence: Evidence,
    blocks: Sequence[Block],
    propagate: Propagate,
    known: Collection[int] = (),
) -> Collected:
    """Yield each wanted block, on the device, with what was collected.

    Args:
        states: the calibration set; it stands in front of the first block before and afterwards.
        evidence: what to collect; it says by which sweep.
        blocks: the blocks to yield, with the sites that matter.
        propagate: which of the changes that the caller makes between two steps the evidence sees.
        known: indices of blocks to yield with nothing, as of `forward_sweep`; only in sweeps that
            are `RESUMED`.

    Yields:
        The block, perhaps in parts, and results by the names that the evidence says, all on the
        block's device wherever they were kept while they were collected.
    """
    more = {"known": known} if known else {}
    for block, results in _SWEEPS[evidence.sweep](states, evidence, blocks, propagate, **more):
        for name in results:  # no name of its own for a result: it would outlive the block
            results[name] = moved(results[name], states.device)
        yield block, results


def go_back_again(kinds: Iterable[Evidence]) -> bool:
    """Whether several of these sweeps go back over blocks, whose inputs they may share."""
    return sum(kind.sweep == "backward" for kind in kinds) > 1


def visit(placement: Placement, blocks: Sequence[Block]) -> Collected:
    """Yield each block, on the device, with nothing: for methods that look at weights alone."""
    for block in blocks:
        with placement.block(block):
            yield block, {}
