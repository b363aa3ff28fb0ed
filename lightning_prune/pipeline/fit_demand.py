"""What training pruned blocks span by span takes: see `Fitting`."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.anatomy import Block
from lightning_prune.pipeline.block_demand import arguments_of, visited_by
from lightning_prune.pipeline.demand import Demand, bytes_of
from lightning_prune.repair import BlockFit

__all__ = ["fitting"]

COPIES = 6
"""Of a span's parameters in fp32: they, the best so far, gradients, two moments, and what a step
makes of them."""


def fitting(demand: Demand, fit: BlockFit, blocks: Sequence[Block], plan: float) -> None:
    """Two models side by side; the dense blocks wait where hidden states do, or on the disk."""
    setting, every = demand.setting, demand.setting.anatomy.blocks
    blocks = [every[block.index] for block in blocks if block.index < len(every)]
    spans = [blocks[start : start + fit.span] for start in range(0, len(blocks), fit.span)]
    waiting = {} if setting.mapped else {"dense blocks": float(sum(map(bytes_of, blocks)))}
    device, host = demand.states(2.0)
    for span in spans:
        size, runs = sum(map(bytes_of, span)), [setting.rehearsal.run(block) for block in span]
        here = device | arguments_of(demand)
        here["weights"] = 0.0 if setting.on_cpu else 2.0 * size
        here["training"] = COPIES * 4.0 * size / setting.itemsize
        here["activations"] = float(sum(run.kept for run in runs) + max(r.forward for r in runs))
        demand.phase("BlockFit: training", here, host | waiting | {"plan": plan})
    batches = setting.batches
    demand.run(2.0, visited_by(demand, blocks))
    judged = max(1, round(batches * fit.held_out)) if fit.held_out else batches
    trained = fit.steps / batches
    demand.run(trained + 5 * judged / batches, blocks)
    demand.run(2 * trained, blocks)  # a pass back costs two
    demand.forward -= 2 * trained * len(blocks) / len(every)
    demand.backward += trained * len(blocks) / len(every)
