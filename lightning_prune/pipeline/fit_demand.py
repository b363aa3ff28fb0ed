"""What training pruned blocks span by span takes: see `Fitting`."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.anatomy import Block
from lightning_prune.pipeline.block_demand import arguments_of, head_bytes, visited_by
from lightning_prune.pipeline.demand import Demand, Setting, bytes_of
from lightning_prune.repair import BlockFit

__all__ = ["fitting"]

COPIES = 6
"""Of a span's parameters in fp32: they, the best so far, gradients, two moments, and what a step
makes of them."""


def fitting(demand: Demand, fit: BlockFit, blocks: Sequence[Block], plan: float) -> None:
    """Two models side by side; the dense blocks wait where hidden states do, or on the disk."""
    setting, every = demand.setting, demand.setting.anatomy.blocks
    blocks = [every[block.index] for block in blocks if block.index < len(every)]
    behind = every[blocks[-1].index + 1 :] if fit.to_the_end and blocks else ()
    waiting = {} if setting.mapped else {"dense blocks": float(sum(map(bytes_of, blocks)))}
    device, host = demand.states(2.0)
    for span in fit.spans(blocks):
        size = sum(map(bytes_of, span))
        here = device | arguments_of(demand)
        here["weights"] = 0.0 if setting.on_cpu else _weights(setting, [*span, *behind], fit)
        here["training"] = COPIES * 4.0 * size / setting.itemsize
        here["activations"] = _activations(demand, [*span, *behind], fit)
        demand.phase("BlockFit: training", here, host | waiting | {"plan": plan})
    batches = setting.batches
    demand.run(2.0, visited_by(demand, blocks))
    judged = max(1, round(batches * fit.held_out)) if fit.held_out else batches
    trained = fit.steps / batches
    forward = (2 if fit.to_the_end else 1) * trained  # a whole model runs again on the way back
    demand.run(forward + 5 * judged / batches, [*blocks, *behind])
    demand.run(2 * trained, [*blocks, *behind])  # a pass back costs two
    demand.forward -= 2 * trained * len([*blocks, *behind]) / len(every)
    demand.backward += trained * len([*blocks, *behind]) / len(every)


def _weights(setting: Setting, blocks: Sequence[Block], fit: BlockFit) -> float:
    """Of the blocks that run, and of the dense one that does."""
    sizes = [bytes_of(block) for block in blocks]
    if not fit.to_the_end:
        return 2.0 * sum(sizes)
    outside = sum(p.nbytes for module in setting.anatomy.outside for p in module.parameters())
    return float(sum(sizes) + max(sizes) + outside)


def _activations(demand: Demand, blocks: Sequence[Block], fit: BlockFit) -> float:
    """Of a batch: all that blocks keep, or their inputs and what one of them keeps, and logits."""
    setting = demand.setting
    runs = [setting.rehearsal.run(block) for block in blocks]
    if not fit.to_the_end:
        return float(sum(run.kept for run in runs) + max(run.forward for run in runs))
    inputs = len(blocks) * setting.hidden / setting.batches
    return inputs + max(run.kept + run.forward for run in runs) + 2.0 * head_bytes(demand)
