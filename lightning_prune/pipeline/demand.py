"""What one pruning will take, told from shapes: memory by phase, passes, operations, bytes sent.

The phases are those of `Run.decide`: what is held in each is added up by what it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence import Evidence
from lightning_prune.methods.base import Method
from lightning_prune.report.resources import Phase
from lightning_prune.sweep.rehearsal import Rehearsal

COMING_AND_GOING = (
    "activations",
    "evidence",
    "results",
    "scores and decisions",
    "repair",
)
HEAP = {"memory": 0.3, "files": 0.7}
"""Of what comes and goes in the CPU's heap, how much more it grows by, as it is left in pieces.

By where the weights are; as measured by benchmarks/resources.py.
"""
MAPPED_ALONE = 2**25
"""Bytes from which glibc maps what is allocated, and gives it back at once."""

__all__ = ["Calibration", "Demand", "Setting", "bytes_of", "model_bytes", "weights_of"]


@dataclass(frozen=True)
class Calibration:
    """The size of a calibration set.

    Attributes:
        windows: how many, of all processes.
        length: tokens of each.
        batch_size: windows in a batch, in each process.
        counted: the tokens of this process, where batches are not all of one shape; None: they are.
    """

    windows: int
    length: int
    batch_size: int
    counted: int | None = None

    def __post_init__(self) -> None:
        for name in ("windows", "length", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} of a calibration set: 1 or more")

    def batches(self, processes: int) -> int:
        """The batches of the process that has most."""
        return math.ceil(math.ceil(self.windows / self.batch_size) / processes)

    def tokens(self, processes: int) -> int:
        """The tokens of the process that has most."""
        if self.counted is not None:
            return self.counted
        most = self.batches(processes) * self.batch_size
        return min(self.windows, most) * self.length


@dataclass(frozen=True)
class Setting:
    """One method, on one model, with one calibration set, on one kind of process.

    Attributes:
        anatomy: of the model, on the meta device.
        method: checked against it.
        calibration: the calibration set.
        rehearsal: a batch of it in that model.
        device: where blocks run.
        mapped: whether weights stay in their files, and changed ones go into files too.
        converted: whether the weights were read into memory, as another type than they are stored
            in. Otherwise what is loaded is mapped, and takes memory of the process as it changes.
        processes: how many share the calibration set.
        device_memory: bytes that are free where blocks run, which some choices depend on.
        host_memory: the same of the host.
        resumes: whether finished blocks are kept on the disk.
    """

    anatomy: Anatomy
    method: Method
    calibration: Calibration
    rehearsal: Rehearsal
    device: torch.device
    mapped: bool = False
    converted: bool = False
    processes: int = 1
    device_memory: int = 2**62
    host_memory: int = 2**62
    resumes: bool = True

    @property
    def on_cpu(self) -> bool:
        """Whether blocks run where the model is."""
        return self.device.type == "cpu"

    @property
    def batches(self) -> int:
        """How many calibration batches each process has."""
        return self.calibration.batches(self.processes)

    @property
    def tokens(self) -> int:
        """How many calibration tokens each process has."""
        return self.calibration.tokens(self.processes)

    @property
    def rows(self) -> tuple[int, int]:
        """(B, T) of the largest batch."""
        return min(self.calibration.batch_size, self.calibration.windows), self.calibration.length

    @property
    def hidden(self) -> int:
        """Bytes of the hidden states of a process, in front of one block."""
        per_token = self.rehearsal.hidden.nbytes // self.rehearsal.hidden.shape[:-1].numel()
        return self.tokens * per_token

    @property
    def itemsize(self) -> int:
        """Bytes of a weight of the blocks."""
        return self.anatomy.blocks[0].sites[0].module.weight.element_size()


@dataclass
class Demand:
    """What a pruning takes, as it is added up.

    Attributes:
        setting: what is asked.
        phases: the fullest moments.
        forward: passes of the calibration set through all blocks.
        backward: the same on the way back.
        operations: multiplications and additions of one process.
        sent: bytes that one process sends to the others, of evidence and of decisions.
        sweeps: how often the weights of all blocks are visited.
        changed: bytes of the weights that the process holds because they were changed.
        shared_inputs: whether several sweeps share the inputs of blocks, and one has made them.
    """

    setting: Setting
    phases: list[Phase] = field(default_factory=list)
    forward: float = 0.0
    backward: float = 0.0
    operations: float = 0.0
    sent: int = 0
    sweeps: int = 0
    changed: float = 0.0
    shared_inputs: Literal["no", "yes", "made"] = "no"

    def phase(
        self, name: str, device: Mapping[str, float], host: Mapping[str, float] | None = None
    ) -> None:
        """Add a moment: what is where blocks run, and what else the process holds.

        Of moments of one name, the fullest is kept.
        """
        setting = self.setting
        both = dict(self._always())
        for label, size in (host or {}).items():
            both[label] = both.get(label, 0) + size
        here = {label: int(size) for label, size in device.items() if size >= 1}
        if setting.on_cpu:
            for label, size in here.items():
                both[label] = both.get(label, 0) + size
            here = {}
            both["heap"] = HEAP["files" if setting.mapped else "memory"] * self._small(both)
        new = Phase(name, here, {label: int(size) for label, size in both.items() if size >= 1})
        for number, old in enumerate(self.phases):
            if old.name == name:
                self.phases[number] = max(old, new, key=_size)
                return
        self.phases.append(new)

    def states(self, sets: float, windows: int = 0) -> tuple[dict[str, float], dict[str, float]]:
        """Sets of hidden states, where the method wants them: on the device, or on the host."""
        share = min(1.0, windows / self.setting.calibration.windows) if windows else 1.0
        size = {"hidden states": sets * share * self.setting.hidden}
        offload = self.setting.method.offload
        if offload == "disk":
            return {}, {}
        return ({}, size) if offload else (size, {})

    def run(self, passes: float, blocks: Sequence[Block]) -> None:
        """Count passes of the calibration set forward through some blocks."""
        every = self.setting.anatomy.blocks
        self.forward += passes * len(blocks) / len(every)
        self.operations += passes * sum(operations_of(self.setting, block) for block in blocks)

    def reduced(self, evidence: int) -> None:
        """Count evidence that is added up over processes, as a ring does it."""
        others = self.setting.processes - 1
        self.sent += 2 * evidence * others // self.setting.processes

    def decided(self, block: Block) -> None:
        """Count what process 0 tells the others of a block."""
        if self.setting.processes > 1 and not self.setting.method.cuts:
            weights = weights_of(block)
            self.sent += weights + bool(self.setting.method.solving) * bytes_of(block, sites=True)

    def _always(self) -> dict[str, float]:
        """What the process holds all the time."""
        setting = self.setting
        if setting.converted:
            return {"model": model_bytes(setting.anatomy)}
        return {"changed weights": self.changed}

    def _small(self, parts: Mapping[str, float]) -> float:
        """Bytes that come and go in the heap: of tensors that are too small to be mapped alone."""
        sites = [site for block in self.setting.anatomy.blocks[:1] for site in block.sites]
        if max((4 * site.module.weight.numel() for site in sites), default=0) >= MAPPED_ALONE:
            return 0.0
        return sum(parts.get(name, 0.0) for name in COMING_AND_GOING)


def operations_of(setting: Setting, block: Block) -> float:
    """Of one pass of a process's tokens through a block: products with weights, and attention."""
    if not block.sites:
        return 0.0
    linear = 2.0 * weights_of(block) * setting.tokens
    attended = 2.0 * block.heads * block.head_dim if len(block.sites) > 1 else 0.0
    return linear + attended * setting.tokens * setting.calibration.length


def weights_of(block: Block) -> int:
    """Weights of a block's sites."""
    return sum(site.module.weight.numel() for site in block.sites)


def bytes_of(block: Block, sites: bool = False) -> int:
    """Bytes of a block's parameters, or of its sites' weights alone."""
    if sites:
        return sum(site.module.weight.nbytes for site in block.sites)
    return sum(parameter.nbytes for parameter in block.module.parameters())


def model_bytes(anatomy: Anatomy) -> int:
    """Bytes of all parameters and buffers of a model, each once."""
    model = anatomy.model
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def asked(method: Method, blocks: Sequence[Block]) -> tuple[Evidence | None, ...]:
    """The kinds of evidence of a method, or None alone."""
    return method.requests(blocks) or (None,)


def _size(phase: Phase) -> int:
    return sum(phase.device.values()) or sum(phase.host.values())
