"""What a block and its evidence take of a sweep: the parts that sweeps have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_prune.anatomy import Block
from lightning_prune.anatomy.tasks import logits_at_once
from lightning_prune.evidence import InputEvidence
from lightning_prune.pipeline.demand import Demand, bytes_of
from lightning_prune.sweep.ahead import ROOM
from lightning_prune.sweep.memory import SMALL, spacing
from lightning_prune.sweep.rehearsal import EvidenceBytes

__all__ = [
    "arguments_of",
    "count_evidence",
    "finishing",
    "head_bytes",
    "inputs_of",
    "spacing_of",
    "visited_by",
    "weights_on_device",
    "whole_of",
]


def inputs_of(demand: Demand, evidence: InputEvidence, block: Block) -> dict[str, EvidenceBytes]:
    """What evidence takes at each input of a block."""
    return {
        name: demand.setting.rehearsal.evidence(
            evidence,
            sites[0].module.in_features,
            sites[0].module.out_features * sites[0].table.adds,
        )
        for name, sites in block.inputs().items()
    }


def finishing(inputs: Mapping[str, EvidenceBytes]) -> dict[str, float]:
    """The most while the results are made, one after the other, of sums that are let go."""
    left, done = sum(size.sums for size in inputs.values()), 0
    moments: list[dict[str, float]] = []
    for size in inputs.values():
        moments.append({"evidence": left, "results": done + size.finish})
        left -= size.sums
        done += size.result
    return max(moments, key=lambda moment: sum(moment.values()))


def count_evidence(
    demand: Demand,
    evidence: InputEvidence,
    block: Block,
    inputs: Mapping[str, EvidenceBytes],
    share: float,
) -> None:
    """The operations of the evidence, and what of it is sent."""
    tokens = int(share * demand.setting.tokens)
    for sites in block.inputs().values():
        linear, adds = sites[0].module, sites[0].module.out_features * sites[0].table.adds
        demand.operations += evidence.operations(linear.in_features, tokens, adds)
    demand.reduced(sum(size.sent for size in inputs.values()))


def visited_by(demand: Demand, blocks: Sequence[Block]) -> list[Block]:
    """The blocks that a sweep runs through: up to the last that is wanted."""
    return demand.setting.anatomy.blocks[: max(block.index for block in blocks) + 1]


def whole_of(demand: Demand, block: Block) -> Block:
    """The block with all its sites; the head as it is."""
    every = demand.setting.anatomy.blocks
    return every[block.index] if block.index < len(every) else block


def weights_on_device(demand: Demand, block: Block) -> dict[str, float]:
    """A block that has come to the device, and the next one; on the CPU they are in the model."""
    if demand.setting.on_cpu:
        return {}
    size = bytes_of(block)
    ahead = size if ROOM * size < demand.setting.device_memory else 0
    return {"weights": size, "next block": ahead}


def arguments_of(demand: Demand) -> dict[str, float]:
    """Masks and tables that the model hands to its blocks."""
    return {"masks and tables": demand.setting.rehearsal.arguments}


def head_bytes(demand: Demand) -> int:
    """What the head takes forward and back, some columns at a time."""
    setting = demand.setting
    batch, length = setting.rows
    classes = setting.anatomy.head.sites[0].module.out_features
    columns = min(length, max(1, logits_at_once(setting.on_cpu) // (batch * classes)))
    return columns * batch * classes * (2 * setting.itemsize + 12)


def spacing_of(demand: Demand, blocks: int) -> int:
    """Of every how many blocks inputs are kept; see `lightning_prune.sweep.memory`."""
    setting, offload = demand.setting, demand.setting.method.offload
    if offload == "disk":
        return 1
    allowed = (setting.host_memory if offload else setting.device_memory) // 2
    return spacing(setting.hidden * blocks, blocks, SMALL if setting.mapped else allowed)
