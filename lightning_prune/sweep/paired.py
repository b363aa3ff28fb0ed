"""Pruning layer by layer with the dense model running in step, and waiting at the same inputs.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lightning_prune.anatomy import Block
from lightning_prune.evidence import PairedEvidence, Propagate
from lightning_prune.sweep.layer_by_layer import shaped
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.steps import Steps, handed_over
from lightning_prune.sweep.waiting import Waiting

__all__ = ["paired_sweep"]


def paired_sweep(
    states: HiddenStates,
    evidence: PairedEvidence,
    blocks: Sequence[Block],
    propagate: Propagate = "layer",
    known: Collection[int] = (),
) -> Steps:
    """Yield each wanted block once an input, as `forward_sweep` does by layer, with both models.

    Args:
        states: the calibration set.
        evidence: what to collect of the inputs of the pruned and of the dense model.
        blocks: the blocks to yield, with the sites that matter; the others are only run through.
        propagate: by layer; there is no other way.
        known: as of `forward_sweep`.
    """
    assert propagate == "layer", "the dense model runs beside the other input by input"
    wanted = {block.index: block for block in blocks}
    last = max(wanted)
    with states.from_start():
        dense_states = states.beside()
        for whole in states.anatomy.blocks[: last + 1]:
            block = wanted.get(whole.index)
            with states.placement.block(whole):
                if block is None:
                    states.advance(whole)
                    dense_states.advance(whole)
                elif whole.index in known:
                    dense_states.advance(whole)
                    yield block, {}
                    states.advance(whole)
                else:
                    feeds = whole.index != last
                    yield from _paired_steps(states, dense_states, block, evidence, feeds)


def _paired_steps(
    states: HiddenStates,
    dense_states: HiddenStates,
    block: Block,
    evidence: PairedEvidence,
    feeds: bool,
) -> Steps:
    """Yield a block once an input; bring both models' states behind it if it feeds a next one."""
    whole = states.anatomy.blocks[block.index]
    dense = block.copied(states.anatomy.model.config)
    paths = [site.table.path for site in whole.sites if site.table.adds]
    error = [states.kept(dense_states.entering(i) - states.entering(i)) for i in states.indices]
    adding = [block.module.get_submodule(path) for path in paths]
    dense_adding = [dense.module.get_submodule(path) for path in paths]
    with (
        Waiting(states, block, adding) as calls,
        Waiting(dense_states, dense, dense_adding) as dense_calls,
    ):
        for name, sites in block.inputs().items():
            site = sites[0]
            width, adds = site.module.in_features, site.module.out_features * site.table.adds
            accumulator = evidence.begin(width, states.device, adds)
            for i in states.indices:
                arrived, expected = calls.until(name, i), dense_calls.until(name, i)
                added, dense_added = calls.added(i), dense_calls.added(i)
                if added is not None and dense_added is not None:
                    change = (dense_added - added).view_as(error[i])
                    error[i] += change.to(error[i].device)
                accumulator.update_pair(
                    shaped(arrived, states, i),
                    shaped(expected, states, i),
                    error[i].to(states.device) if adds else None,
                    states.keep(i),
                )
                del arrived, expected
            accumulator.reduce()
            results = {name: accumulator.result()}
            del accumulator
            yield from handed_over(block.part(sites), results)
        if feeds:
            for i in states.indices:
                states.put(i, calls.output(i))
                dense_states.put(i, dense_calls.output(i))
