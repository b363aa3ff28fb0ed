"""What each sweep takes: the hidden states, one batch in a block, the evidence, the results.

Every function here is the sum of what the sweep of its name holds; see `lightning_prune.sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lightning_prune.anatomy import Block
from lightning_prune.evidence import (
    BlockEvidence,
    Evidence,
    InputEvidence,
    PairedEvidence,
    Propagate,
    Removal,
    Trial,
    WeightEvidence,
)
from lightning_prune.pipeline.block_demand import (
    arguments_of,
    count_evidence,
    finishing,
    head_bytes,
    inputs_of,
    spacing_of,
    visited_by,
    weights_on_device,
    whole_of,
)
from lightning_prune.pipeline.demand import Demand, bytes_of, operations_of, weights_of
from lightning_prune.sweep.memory import SMALL
from lightning_prune.sweep.rehearsal import EvidenceBytes

__all__ = ["Deciding", "collecting", "collecting_evidence"]

Deciding = Callable[[Block, float, dict[str, float]], None]
"""(block, bytes of its results, what else is on the device) is told of each block that is ready."""


def collecting_evidence(
    demand: Demand,
    label: str,
    evidence: Evidence | None,
    blocks: Sequence[Block],
    propagate: Propagate,
    held: Mapping[str, float],
    decide: Deciding,
) -> None:
    """Add what a sweep takes, and let `decide` add what is done with each block's results.

    Args:
        demand: is added to.
        label: of its phases.
        evidence: what is collected; None: blocks are visited alone.
        blocks: that are yielded, with the sites that matter.
        propagate: which changes are seen.
        held: what else is held all the while, on the device.
        decide: told of each block.
    """
    back = evidence is not None and evidence.sweep == "backward"
    demand.sweeps += 1 + (back and demand.shared_inputs != "made")
    if evidence is None:
        for block in blocks:
            decide(block, 0.0, weights_on_device(demand, block) | dict(held))
        return
    collecting[evidence.sweep](demand, label, evidence, blocks, propagate, held, decide)


def _forward(
    demand: Demand,
    label: str,
    evidence: InputEvidence,
    blocks: Sequence[Block],
    propagate: Propagate,
    held: Mapping[str, float],
    decide: Deciding,
    windows: int = 0,
) -> None:
    device, host = demand.states(1, windows)
    visited = visited_by(demand, blocks)
    share = min(1.0, windows / demand.setting.calibration.windows) if windows else 1.0
    demand.run(share * (2 if propagate == "block" else 1), visited)
    for block in blocks:
        whole = whole_of(demand, block)
        base = _at_block(demand, whole, device, held)
        inputs = inputs_of(demand, evidence, block)
        count_evidence(demand, evidence, block, inputs, share)
        if propagate == "layer" and block.index < len(demand.setting.anatomy.blocks):
            _by_layer(demand, label, whole, inputs, base, host, decide, block)
            continue
        run = demand.setting.rehearsal.run(whole)
        sums = sum(size.sums for size in inputs.values())
        busiest = max(
            run.forward,
            *(run.waiting.get(name, 0) + size.update for name, size in inputs.items()),
        )
        demand.phase(f"{label}: passes", base | {"evidence": sums, "activations": busiest}, host)
        demand.phase(f"{label}: passes", base | finishing(inputs), host)
        results = sum(size.result for size in inputs.values())
        decide(block, results, base)


def _at_block(
    demand: Demand, whole: Block, device: Mapping[str, float], held: Mapping[str, float]
) -> dict[str, float]:
    """What is on the device while a block is at work: it, the hidden states, and what waits."""
    weights = weights_on_device(demand, whole)
    return weights | dict(device) | arguments_of(demand) | dict(held)


def _by_layer(
    demand: Demand,
    label: str,
    whole: Block,
    inputs: Mapping[str, EvidenceBytes],
    base: dict[str, float],
    host: dict[str, float],
    decide: Deciding,
    block: Block,
    copies: int = 1,
) -> None:
    """Every batch waits at an input, in each of the models that run in step."""
    run, batches = demand.setting.rehearsal.run(whole), demand.setting.batches
    for sites in block.inputs().values():
        name = sites[0].table.reads
        size = inputs[name]
        waiting = {"activations": copies * run.waiting.get(name, 0) * batches}
        busy = waiting["activations"] + max(run.forward, size.update)
        full = {"activations": busy, "evidence": size.sums}
        demand.phase(f"{label}: passes", base | full, host)
        made = waiting | {"evidence": size.sums, "results": size.finish}
        demand.phase(f"{label}: passes", base | made, host)
        decide(block.part(sites), size.result, base | waiting)


def _paired(
    demand: Demand,
    label: str,
    evidence: PairedEvidence,
    blocks: Sequence[Block],
    propagate: Propagate,
    held: Mapping[str, float],
    decide: Deciding,
) -> None:
    device, host = demand.states(3)  # pruned, dense, and the difference
    demand.run(2, visited_by(demand, blocks))
    for block in blocks:
        whole = whole_of(demand, block)
        base = _at_block(demand, whole, device, held)
        base["dense block"] = bytes_of(whole)
        inputs = inputs_of(demand, evidence, block)
        count_evidence(demand, evidence, block, inputs, 1.0)
        _by_layer(demand, label, whole, inputs, base, host, decide, block, copies=2)


def _backward(
    demand: Demand,
    label: str,
    evidence: WeightEvidence,
    blocks: Sequence[Block],
    propagate: Propagate,
    held: Mapping[str, float],
    decide: Deciding,
) -> None:
    setting = demand.setting
    first, every = min(block.index for block in blocks), setting.anatomy.blocks
    behind = every[first:]
    total = 8 * evidence.floats * sum(map(weights_of, blocks))
    kept = max((setting.rehearsal.run(block).kept for block in behind), default=0)
    missing = 0 if setting.on_cpu else sum(map(bytes_of, every))
    needed = total + missing + len(behind) * kept
    allowed = setting.device_memory // 2
    allowed = min(allowed, SMALL) if setting.on_cpu else allowed
    whole = not setting.method.offload and not setting.mapped and needed <= allowed
    head = head_bytes(demand)
    demand.backward += len(behind) / len(every)
    demand.operations += 2 * sum(operations_of(setting, block) for block in behind)
    demand.reduced(total)
    if whole:
        demand.run(1, every)
        device, host = demand.states(1)
        device = (
            device | {"weights": missing, "evidence": total} | arguments_of(demand) | dict(held)
        )
        full = device | {"activations": len(behind) * kept + head}
        demand.phase(f"{label}: passes", full, host)
        for block in blocks:
            decide(block, 0.0, device)
        return
    if demand.shared_inputs != "made":
        demand.run(1, every)
    demand.run(1, behind)
    every_nth = spacing_of(demand, len(behind))
    if every_nth > 1:
        demand.run(1, behind)
    sets = -(-len(behind) // every_nth) + every_nth - 1  # inputs of blocks
    inputs, host = demand.states(sets + 2)  # and the last output, and the gradient
    outside = (
        0
        if setting.on_cpu
        else sum(p.nbytes for module in setting.anatomy.outside for p in module.parameters())
    )
    dwindling = every_nth == 1 and demand.shared_inputs == "no"
    demand.shared_inputs = "no" if demand.shared_inputs == "no" else "made"
    base = inputs | arguments_of(demand) | dict(held)
    demand.phase(f"{label}: passes", base | {"weights": outside, "activations": head}, host)
    for block in blocks:
        if block.index == len(every):
            decide(block, 8.0 * evidence.floats * weights_of(block), base)
            continue
        whole_block = whole_of(demand, block)
        peak, sums = setting.rehearsal.backward(block, evidence)
        left = dict(base)
        if "hidden states" in left and dwindling:
            left["hidden states"] *= (block.index - first + 3) / (sets + 2)
        left |= weights_on_device(demand, whole_block)
        full = left | {"evidence": sums, "activations": peak - sums}
        demand.phase(f"{label}: passes", full, host)
        decide(block, sums, left)


def _influence(
    demand: Demand,
    label: str,
    evidence: BlockEvidence,
    blocks: Sequence[Block],
    propagate: Propagate,
    held: Mapping[str, float],
    decide: Deciding,
) -> None:
    parts = evidence.part != "block"
    device, host = demand.states(evidence.span + 1 + parts)
    demand.run(1 + parts, visited_by(demand, blocks))
    for block in blocks:
        whole = whole_of(demand, block)
        base = _at_block(demand, whole, device, held)
        run = demand.setting.rehearsal.run(whole)
        compared = 6 * 8 * demand.setting.rehearsal.hidden.numel() // 2  # in float64, two at a time
        demand.phase(f"{label}: passes", base | {"activations": max(run.forward, compared)}, host)
        decide(block, 0.0, base)


def _removal(
    demand: Demand,
    label: str,
    evidence: Removal,
    blocks: Sequence[Block],
    propagate: Propagate,
    held: Mapping[str, float],
    decide: Deciding,
) -> None:
    every, windows = demand.setting.anatomy.blocks, evidence.windows
    share = min(1.0, windows / demand.setting.calibration.windows) if windows else 1.0
    device, host = demand.states(3, windows)
    demand.run(share, every)
    demand.run(share, visited_by(demand, blocks))
    for block in blocks:
        demand.run(share, every[block.index + 1 :])
        whole = whole_of(demand, block)
        base = _at_block(demand, whole, device, held)
        run = demand.setting.rehearsal.run(whole)
        busy = {"activations": max(run.forward, head_bytes(demand))}
        demand.phase(f"{label}: passes", base | busy, host)
        decide(block, 0.0, base)


def _trial(
    demand: Demand,
    label: str,
    evidence: Trial,
    blocks: Sequence[Block],
    propagate: Propagate,
    held: Mapping[str, float],
    decide: Deciding,
) -> None:
    share = min(1.0, evidence.windows / demand.setting.calibration.windows)
    dense = share * demand.setting.hidden

    def tried(block: Block, results: float, base: dict[str, float]) -> None:
        demand.run(share * (1 + len(block.sites)), [whole_of(demand, block)])
        largest = max(site.module.weight.numel() for site in block.sites)
        run = demand.setting.rehearsal.run(whole_of(demand, block))
        busy = {"activations": dense + run.forward, "evidence": results}
        work = {"scores and decisions": (2 * demand.setting.itemsize + 12) * largest}
        demand.phase(f"{label}: trials", base | busy | work)
        decide(block, 0.0, base)

    _forward(demand, label, evidence.inputs, blocks, "block", held, tried, evidence.windows)


collecting: dict[str, Callable[..., None]] = {
    "forward": _forward,
    "paired": _paired,
    "backward": _backward,
    "influence": _influence,
    "removal": _removal,
    "trial": _trial,
}
