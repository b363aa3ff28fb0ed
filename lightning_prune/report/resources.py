"""What a pruning will take: memory, disk, passes, network, time, files; a table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_prune.report.files import Document
from lightning_prune.report.names import model_name
from lightning_prune.report.numbers import count_text, duration_text
from lightning_prune.report.tables import Column, Figure, Row, Table

__all__ = ["Phase", "Resources", "memory_text", "resources_document"]

NAMED = 3
"""How many of the parts of a phase are named, the largest ones."""


@dataclass(frozen=True)
class Phase:
    """What is held at the fullest moment of one part of the work, by what it is, in bytes.

    Attributes:
        name: of the part.
        device: where blocks run; empty where that is the CPU.
        host: by the process itself.
    """

    name: str
    device: Mapping[str, int] = field(default_factory=dict)
    host: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Resources:
    """What one run of `prune` will take.

    Attributes:
        model: what it is called.
        methods: the calls of the methods, in their order.
        parameters: of the model.
        weights: bytes of its parameters.
        device: where blocks run.
        processes: on all nodes together.
        nodes: how many.
        placement: "memory" or "checkpoint".
        calibration: windows, length and batch_size.
        phases: the fullest moments, in their order.
        libraries: bytes that a process holds before it loads anything.
        disk: bytes by what they are for; "peak": the most at once.
        passes: of the calibration set through all blocks, "forward" and "backward".
        sent: bytes that one process sends to the others.
        operations: multiplications and additions of one process.
        read: bytes that are read from the model's files, in all.
        rates: operations and bytes read, a second; without those that are not known.
        seconds: by what they are for.
        files: what is written, by its path in the run's folder: bytes, or None if they depend.
        free: bytes that are free, on the "device" and the "host"; without those that are not known.
        advice: what to say about whether it fits.
    """

    model: str
    methods: Sequence[str]
    parameters: int
    weights: int
    device: str
    processes: int
    nodes: int
    placement: str
    calibration: Mapping[str, int]
    phases: Sequence[Phase]
    libraries: int
    disk: Mapping[str, int]
    passes: Mapping[str, float]
    sent: int
    operations: float
    read: int
    rates: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, int | None] = field(default_factory=dict)
    free: Mapping[str, int] = field(default_factory=dict)
    advice: Sequence[str] = ()

    @property
    def peak_device(self) -> int:
        """The most on the device; 0 where that is the CPU."""
        return max((sum(phase.device.values()) for phase in self.phases), default=0)

    @property
    def peak_host(self) -> int:
        """The most that one process holds itself, with its libraries, in the host's memory."""
        most = max((sum(phase.host.values()) for phase in self.phases), default=0)
        return self.libraries + most

    @property
    def host_of_node(self) -> int:
        """The most that the processes of one node hold together."""
        return self.peak_host * self.processes // self.nodes

    @property
    def value(self) -> dict[str, Any]:
        """All of it, for JSON."""
        peaks = {name: getattr(self, name) for name in ("peak_device", "peak_host", "host_of_node")}
        return asdict(self) | peaks


def resources_document(resources: Resources) -> Document:
    """Resources as they are printed and written."""
    tables = [_phases(resources), _totals(resources), _files(resources)]
    lines = list(resources.advice)
    return Document("resources", resources.value, [*tables, *lines], [*tables, *lines])


def memory_text(size: float) -> str:
    """Bytes in three digits, as powers of 1024: what memory is counted in."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= 0.9995 * unit:
            value = size / unit
            return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {name}"
    return f"{size:.0f} B"


def _phases(resources: Resources) -> Table:
    rows: list[Row] = []
    for phase in resources.phases:
        device, host = sum(phase.device.values()), sum(phase.host.values())
        parts = phase.device or phase.host
        most = sorted(parts.items(), key=lambda part: -part[1])[:NAMED]
        named = ", ".join(f"{name} {memory_text(size)}" for name, size in most)
        shown = Figure(host, memory_text(host))
        rows.append((phase.name, *_device(resources, device), shown, named))
    named = f"{model_name(resources.model)}: {', then '.join(resources.methods)}"
    header = ("part", *_device(resources, "device"), "host", Column("of this", words=True))
    return Table(f"{named}\nthe most that one process holds", header, rows)


def _device(resources: Resources, value: Any) -> tuple[Any, ...]:
    """A column that is there only where blocks run elsewhere."""
    if resources.device == "cpu":
        return ()
    return (value if isinstance(value, str) else Figure(value, memory_text(value)),)


def _totals(resources: Resources) -> Table:
    passes, disk = resources.passes, resources.disk
    windows, length = resources.calibration["windows"], resources.calibration["length"]
    rows: list[tuple[str, str, str]] = []
    if resources.device != "cpu":
        rows.append(("device", memory_text(resources.peak_device), resources.device))
    libraries = f"with {memory_text(resources.libraries)} of interpreter and libraries"
    rows.append(("host, a process", memory_text(resources.peak_host), libraries))
    if resources.processes > 1:
        each = f"{resources.processes // resources.nodes} processes on each of {resources.nodes}"
        rows.append(("host, a node", memory_text(resources.host_of_node), each))
    if resources.placement == "checkpoint":
        pages = "of the model's files; the system takes them back, and processes share them"
        rows.append(("pages, a node", memory_text(resources.weights), pages))
    parts = ", ".join(f"{k} {memory_text(v)}" for k, v in disk.items() if v and k != "peak")
    rows.append(("disk", memory_text(disk["peak"]), parts))
    of_set = f"of {windows} x {length} tokens through all blocks"
    rows.append(("passes forward", f"{passes['forward']:.3g}", of_set))
    if passes["backward"]:
        rows.append(("passes back", f"{passes['backward']:.3g}", "each of two forward's work"))
    if resources.processes > 1:
        rows.append(("network", memory_text(resources.sent), "sent by each process"))
    rates = resources.rates
    work = f"{resources.operations:.2e} operations a process"
    if "operations" in rates:
        speed = f"{work}, at {rates['operations']:.3g} a second"
        rows.append(("arithmetic", duration_text(resources.seconds["arithmetic"]), speed))
    else:
        rows.append(("arithmetic", "-", f"{work}; at an unknown rate"))
    if "read" in rates:
        speed = f"{memory_text(resources.read)}, at {memory_text(rates['read'])} a second"
        rows.append(("reading", duration_text(resources.seconds["reading"]), speed))
    size = f"{count_text(resources.parameters)} parameters, {memory_text(resources.weights)}"
    header = ("what", "most", Column(size, words=True))
    return Table("", header, rows)


def _files(resources: Resources) -> Table:
    rows = [
        (name, "" if size is None else memory_text(size)) for name, size in resources.files.items()
    ]
    return Table("", ("written", "size"), rows)
