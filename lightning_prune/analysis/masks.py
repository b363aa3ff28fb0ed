"""Which weights stay in a saved model or a plan, one matrix at a time.

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch

from lightning_prune.analysis.keys import in_order, place_of
from lightning_prune.checkpoints.bundled import bundled_model, meant_model
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.plan import Plan

__all__ = ["CHUNK", "Masks", "Rows", "shared_names"]

CHUNK = 1 << 16
"""Weights that are looked at together: their numbers stay in a processor's cache."""

Rows = tuple["np.ndarray | None", np.ndarray]
"""Some rows of a matrix: values (float, or None where only a mask is known), and what stays."""


class Masks:
    """What stays of the matrices in the blocks: weights that are not zero, or what a plan keeps.

    Of a checkpoint one matrix is in memory at a time, mapped from its file. A plan is held as it
    lies on the disk, with a bit for each weight. What a plan keeps of units (neurons, groups) is
    one row for each block, named `blocks.3.neuron`.

    Attributes:
        path: as it was given.
        shapes: (O, I) of each matrix by its name, in the order of blocks; of units (1, U).
        has_values: whether the weights are known, and not only which of them stay.

    Args:
        path: a Hugging Face folder, one safetensors file, "quickstart", a plan's folder, or its
            plan.json, also where that lies beside weights.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: weights or plan are damaged, or hold no matrix in a block.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        where = bundled_model(path) or Path(path)
        if not where.exists():
            raise FileNotFoundError(
                f"no model or plan at {self.path!r}; give the folder of a saved model, or of a "
                f"plan.{meant_model(self.path)}"
            )
        self._plan = _plan(where)
        self._reader = TensorReader(where) if self._plan is None else None
        self.has_values = self._plan is None
        shapes = _weights(self._reader) if self._reader is not None else _decided(self._plan)
        self.shapes = {name: shapes[name] for name in in_order(shapes)}
        if not self.shapes:
            raise ValueError(
                f"{self.path} has no matrix in a block: no floating-point weight of two dimensions "
                "is named after the number of a block, as in model.layers.0.mlp.up_proj.weight"
            )

    @property
    def blocks(self) -> int | None:
        """How many blocks a whole model has; None of a plan, and of one file of several."""
        if self._reader is None or Path(self.path).is_file():
            return None
        return len({place[0] for place in map(place_of, self.shapes) if place})

    def rows(self, name: str) -> Iterator[Rows]:
        """The rows of a matrix, some at a time, from the first to the last."""
        if self._reader is None:
            keep_OI = self.mask(name)
            for start in _starts(keep_OI.shape):
                yield None, keep_OI[start : start + _step(keep_OI.shape)]
            return
        weight_OI = self._reader.tensor(name)
        for start in _starts(weight_OI.shape):
            values_OI = _numbers(weight_OI[start : start + _step(weight_OI.shape)])
            yield values_OI, values_OI != 0

    def mask(self, name: str) -> np.ndarray:
        """What stays of a matrix, (O, I)."""
        if self._plan is None:
            return np.concatenate([keep_OI for _, keep_OI in self.rows(name)])
        if name in self._plan.mask_names:
            return self._plan.mask(name).numpy()
        _, block, kind = name.split(".")
        kept = self._plan.blocks(kind)[int(block)]
        keep_U = torch.zeros(kept.total, dtype=torch.bool).index_fill_(0, kept.index_U, True)
        return keep_U[None].numpy()

    def scores(self, name: str) -> tuple[str, np.ndarray] | None:
        """What made the plan, and the scores that it decided on a matrix from, if it kept them."""
        if self._plan is None or ("weight", name) not in self._plan.score_keys:
            return None
        method = self._plan.steps[-1].get("method", "a method")
        return method, self._plan.scores("weight", name).float().numpy()

    def bytes(self, name: str) -> int:
        """What is read of a matrix."""
        if self._reader is None:
            return -(-int(np.prod(self.shapes[name])) // 8)
        return self._reader.info[name].nbytes


def shared_names(
    sources: Sequence[Masks], include: Sequence[str] = ("*",)
) -> dict[str, tuple[int, int]]:
    """The matrices that all sources have, with their shapes.

    Args:
        sources: one or more.
        include: patterns of names, as in "*.mlp.*"; a matrix that matches none is left out.

    Raises:
        ValueError: there are none, a pattern matches none, or a shape differs.
    """
    first = sources[0]
    shared = [n for n in first.shapes if all(n in other.shapes for other in sources[1:])]
    if not shared:
        other = next(o for o in sources[1:] if not set(o.shapes) & set(first.shapes))
        raise ValueError(
            f"{first.path} and {other.path} have no matrix in common: the one has "
            f"{next(iter(first.shapes))}, the other {next(iter(other.shapes))}. Give checkpoints "
            "or plans of one model."
        )
    for pattern in include:
        if not any(fnmatchcase(name, pattern) for name in shared):
            raise ValueError(
                f"include={pattern!r} matches no matrix; names are like {shared[0]} and "
                f"{shared[-1]}, and * stands for anything"
            )
    names = [n for n in shared if any(fnmatchcase(n, pattern) for pattern in include)]
    for name in names:
        for other in sources[1:]:
            if other.shapes[name] != first.shapes[name]:
                raise ValueError(
                    f"{name} is of shape {first.shapes[name]} in {first.path} and "
                    f"{other.shapes[name]} in {other.path}: masks are compared place by place. Of "
                    "models that were cut, compare the plans, which say what was cut off."
                )
    return {name: first.shapes[name] for name in names}


def _plan(path: Path) -> Plan | None:
    """The plan that a path stands for; None: it stands for weights."""
    if path.name == "plan.json":
        return Plan.load(path)
    has_weights = path.is_file() or any(path.glob("model*.safetensors"))
    return None if has_weights or not (path / "plan.json").is_file() else Plan.load(path)


def _weights(reader: TensorReader) -> dict[str, tuple[int, int]]:
    return {
        name: (info.shape[0], info.shape[1])
        for name, info in reader.info.items()
        if info.dtype.is_floating_point
        and len(info.shape) == 2
        and name.endswith(".weight")
        and place_of(name) is not None
    }


def _decided(plan: Plan | None) -> dict[str, tuple[int, int]]:
    assert plan is not None
    shapes = {}
    for name in plan.mask_names:
        rows, columns = plan.mask_shape(name)
        shapes[name] = (rows, columns)
    for kind in plan.kinds:
        shapes |= {f"blocks.{i}.{kind}": (1, kept.total) for i, kept in plan.blocks(kind).items()}
    return shapes


def _numbers(part_OI: torch.Tensor) -> np.ndarray:
    """Weights as NumPy's float32, or float64.

    Not by torch, whose threads wait for each other by taking all the time that there is, which is
    long where other threads read, too.
    """
    if part_OI.dtype == torch.bfloat16:  # the upper half of a float32
        bits_OI = part_OI.view(torch.int16).numpy().astype(np.uint32)
        return np.left_shift(bits_OI, 16, out=bits_OI).view(np.float32)
    if part_OI.dtype == torch.float16:
        return part_OI.numpy().astype(np.float32)
    return (part_OI.float() if part_OI.element_size() == 1 else part_OI).numpy()


def _step(shape_OI: Sequence[int]) -> int:
    return max(1, CHUNK // max(shape_OI[1], 1))


def _starts(shape_OI: Sequence[int]) -> range:
    return range(0, shape_OI[0], _step(shape_OI))
