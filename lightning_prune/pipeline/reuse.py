"""What several methods ask of the same dense model, kept so that it is collected once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Reuse"]


@dataclass
class Reuse:
    """Statistics of one dense model on one calibration set, for a grid of methods.

    Pass the same object to every `prune` of a copy of that model with those batches. What only
    depends on the dense model is then collected once: the importance that an allocation gives to
    blocks or sites, whatever the sparsity; and, of methods with propagate="none", the evidence of
    every block. It is kept on the CPU.

    Attributes:
        importance: by allocation and sites.
        evidence: block by block, by kind and sites.
    """

    importance: dict[Hashable, list[float]] = field(default_factory=dict)
    evidence: dict[Hashable, list[Mapping[str, Any]]] = field(default_factory=dict)
