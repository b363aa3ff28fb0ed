"""How many weights of a saved model are zero, and in which pattern; the model is never built.

Tensors are read a few rows at a time, so that neither the model nor one of its matrices has to
fit in memory.

Axes: O output features, I input features, M consecutive inputs of one group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_prune.analysis.keys import place_of
from lightning_prune.analysis.plan_check import MaskCheck, PlanCheck, PlanComparison
from lightning_prune.checkpoints.bundled import meant_model
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.selection import Pattern

__all__ = ["PATTERNS", "MatrixZeros", "SparsityReport", "fraction", "matrix_zeros", "sparsity"]

PATTERNS = ("1:4", "2:4", "4:8")
"""The patterns that are looked for, the sparsest first; N of M consecutive inputs are kept."""

CHUNK = 1 << 24  # weights that are in memory at a time


@dataclass(frozen=True)
class MatrixZeros:
    """The zeros of one matrix in a block.

    Attributes:
        name: its name in the state dict.
        block: index of its block.
        kind: its place in the block, such as "mlp.up_proj".
        shape: (O, I).
        zeros: how many of its weights are zero.
        row_min, row_max: fraction of zeros in the rows (output features) with the fewest and most.
        patterns: by pattern, the fraction of its groups that hold to it; patterns that do not
            divide its width are left out.
        norm: Frobenius norm of its weights.
    """

    name: str
    block: int
    kind: str
    shape: tuple[int, int]
    zeros: int
    row_min: float
    row_max: float
    patterns: dict[str, float]
    norm: float = 0.0

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class SparsityReport:
    """The zeros of one saved model.

    Attributes:
        path: the folder or file.
        matrices: the weights of the blocks' Linears: two-dimensional, named after a block's number.
        parameters: entries of all tensors of floating point, as stored: tied ones count once.
        zeros: how many of these are zero.
        packed: entries of integer tensors, of which zeros say nothing; not in `parameters`.
        plan: how the plan beside the weights compares; None if there is none with masks.
        searched: the patterns that were looked for.
    """

    path: str
    matrices: list[MatrixZeros]
    parameters: int
    zeros: int
    packed: int = 0
    plan: PlanCheck | None = None
    searched: tuple[str, ...] = PATTERNS

    @property
    def linear_sparsity(self) -> float:
        """Fraction of zeros over the weights of the blocks' Linears."""
        return fraction(self.matrices)

    @property
    def total_sparsity(self) -> float:
        """Fraction of zeros over all parameters: embeddings, norms, biases and head too."""
        return self.zeros / max(self.parameters, 1)

    @property
    def blocks(self) -> list[int]:
        """Indices of the blocks."""
        return sorted({matrix.block for matrix in self.matrices})

    @property
    def kinds(self) -> list[str]:
        """Kinds of matrices, in the order in which they are found."""
        return list(dict.fromkeys(matrix.kind for matrix in self.matrices))

    @property
    def pattern(self) -> str | None:
        """The sparsest pattern that all groups of all matrices hold to; None if there is none."""
        return next((p for p in self.searched if self.matrices and self.compliance(p) == 1), None)

    def compliance(self, pattern: str) -> float:
        """Fraction of all groups that hold to a pattern; one it does not divide holds nowhere."""
        size = Pattern.parse(pattern).group
        held = sum(m.patterns.get(pattern, 0.0) * m.weights / size for m in self.matrices)
        return held * size / max(sum(m.weights for m in self.matrices), 1)

    def select(self, block: int | None = None, kind: str | None = None) -> list[MatrixZeros]:
        """The matrices of a block, of a kind, or both."""
        return [
            m
            for m in self.matrices
            if (block is None or m.block == block) and (kind is None or m.kind == kind)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can say it: totals, then by block, by kind and by matrix."""
        return {
            "path": self.path,
            "linear": _totals(self.matrices),
            "all_parameters": {
                "weights": self.parameters,
                "zeros": self.zeros,
                "sparsity": self.total_sparsity,
            },
            "packed_integers": self.packed,
            "pattern": self.pattern,
            "compliance": {pattern: self.compliance(pattern) for pattern in self.searched},
            "plan": None if self.plan is None else asdict(self.plan) | {"agrees": self.plan.agrees},
            "blocks": {str(i): _totals(self.select(block=i)) for i in self.blocks},
            "kinds": {kind: _totals(self.select(kind=kind)) for kind in self.kinds},
            "matrices": [asdict(m) | {"sparsity": fraction([m])} for m in self.matrices],
        }


def sparsity(path: str | Path, patterns: Sequence[str] = PATTERNS) -> SparsityReport:
    """Count the zeros of a saved model.

    ```python
    report = sparsity("runs/wanda/pruned")
    report.linear_sparsity, report.pattern  # 0.5, "2:4"
    ```

    Args:
        path: a Hugging Face folder with safetensors (in one file or several), or one such file.
        patterns: N:M patterns to look for, the sparsest first; N of M consecutive inputs are kept.

    Raises:
        FileNotFoundError: no such folder, or no weights in it.
        ValueError: pickled weights only, a damaged file, or a pattern that is none.
    """
    path = Path(path)
    parsed = {str(p): p for p in map(Pattern.parse, patterns)}
    if not path.exists():
        raise FileNotFoundError(
            f"no model at {str(path)!r}; give the folder that its weights lie in."
            f"{meant_model(str(path))}"
        )
    reader = TensorReader(path)
    matrices, parameters, zeros, packed = [], 0, 0, 0
    plan = PlanComparison(path if path.is_dir() else path.parent)
    for name, info in reader.info.items():
        if not info.dtype.is_floating_point:
            packed += info.numel
            continue
        mask = plan.mask(name, info.shape)
        counts = _counts(_rows(reader, name), info.shape, parsed, mask)
        plan.note(name, mask)
        parameters += info.numel
        zeros += counts.zeros
        if (place := _place(name, info.shape)) is not None:
            matrices.append(counts.matrix(name, *place, info.shape))
    matrices.sort(key=lambda m: m.block)
    return SparsityReport(
        str(path), matrices, parameters, zeros, packed, plan.result(), tuple(parsed)
    )


def matrix_zeros(
    state: Mapping[str, torch.Tensor], patterns: Sequence[str] = PATTERNS
) -> list[MatrixZeros]:
    """The zeros of the blocks' Linears of a model in memory, from its state dict."""
    reader, found = TensorReader(state), []
    parsed = {str(p): p for p in map(Pattern.parse, patterns)}
    for name, info in reader.info.items():
        place = _place(name, info.shape)
        if place is not None and info.dtype.is_floating_point:
            counts = _counts(_rows(reader, name), info.shape, parsed, None)
            found.append(counts.matrix(name, *place, info.shape))
    return sorted(found, key=lambda m: m.block)


def fraction(matrices: Iterable[MatrixZeros]) -> float:
    """Fraction of zeros over several matrices."""
    matrices = list(matrices)
    return sum(m.zeros for m in matrices) / max(sum(m.weights for m in matrices), 1)


def _totals(matrices: list[MatrixZeros]) -> dict[str, Any]:
    return {
        "weights": sum(m.weights for m in matrices),
        "zeros": sum(m.zeros for m in matrices),
        "sparsity": fraction(matrices),
        "row_min": min((m.row_min for m in matrices), default=0.0),
        "row_max": max((m.row_max for m in matrices), default=0.0),
    }


# --- counting ---


def _place(name: str, shape: tuple[int, ...]) -> tuple[int, str] | None:
    """The block of a matrix and its place in it; None: it is no matrix of a block."""
    place = place_of(name)
    return place if place and name.endswith(".weight") and len(shape) == 2 else None


def _rows(reader: TensorReader, name: str) -> Iterator[torch.Tensor]:
    """A tensor as (rows, all other axes), some rows at a time."""
    info = reader.info[name]
    if not info.shape:  # a single number has no rows to slice
        yield torch.ones(1, 1)
        return
    step = max(1, CHUNK * info.shape[0] // max(info.numel, 1))
    for start in range(0, info.shape[0], step):
        part = reader.rows(name, start, start + step)
        part = part.float() if part.element_size() == 1 else part  # fp8 compares nowhere
        yield part.flatten(1) if part.ndim > 1 else part[:, None]


@dataclass
class _Counts:
    zeros: int = 0
    row_norms: list[float] = field(default_factory=list)
    row_zeros: list[int] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def matrix(self, name: str, block: int, kind: str, shape: tuple[int, ...]) -> MatrixZeros:
        rows, inputs = shape
        return MatrixZeros(
            name=name,
            block=block,
            kind=kind,
            shape=(rows, inputs),
            zeros=self.zeros,
            row_min=min(self.row_zeros, default=0) / max(inputs, 1),
            row_max=max(self.row_zeros, default=0) / max(inputs, 1),
            patterns={p: self.held[p] / max(self.groups[p], 1) for p in self.held},
            norm=math.sqrt(math.fsum(norm * norm for norm in self.row_norms)),
        )


def _counts(
    rows: Iterable[torch.Tensor],
    shape: tuple[int, ...],
    patterns: dict[str, Pattern],
    mask: MaskCheck | None,
) -> _Counts:
    counts = _Counts()
    for value_OI in rows:
        nonzero_OI = value_OI != 0
        norm_O = torch.linalg.vector_norm(value_OI, dim=1, dtype=torch.float32)
        counts.row_norms += norm_O.tolist()
        zeros_O = nonzero_OI.shape[1] - nonzero_OI.sum(dim=1)
        counts.row_zeros += zeros_O.tolist()
        for name, pattern in patterns.items():
            if len(shape) == 2 and shape[1] % pattern.group == 0:
                kept = nonzero_OI.unflatten(1, (-1, pattern.group)).sum(-1, dtype=torch.int16)
                counts.held[name] = counts.held.get(name, 0) + int((kept <= pattern.kept).sum())
                counts.groups[name] = counts.groups.get(name, 0) + kept.numel()
        if mask is not None:
            mask.compare(nonzero_OI)
    counts.zeros = sum(counts.row_zeros)
    return counts
