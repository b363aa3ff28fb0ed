"""A model whose small activations count as zero, for a while."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from lightning_prune.analysis.activations import Thresholds
from lightning_prune.anatomy.weights import check_numbers
from lightning_prune.checkpoints.names import THRESHOLDS
from lightning_prune.checks import meant
from lightning_prune.kernels.linear import Choices, SparseLinear
from lightning_prune.sweep.placement import replaced_forward

__all__ = ["SparseActivations", "read_thresholds", "sparse_activations", "usable_thresholds"]

EXPECTED = 0.5
"""Share of the inputs that is zero, where thresholds do not say it."""


class SparseActivations:
    """What a model does inside the context.

    Args:
        linears: by name, what runs in place of their forwards.
        choices: which way products go.
    """

    def __init__(self, linears: Mapping[str, SparseLinear], choices: Choices) -> None:
        self.linears, self._choices = linears, choices

    @property
    def unread(self) -> float | None:
        """Share of the weights of these Linears, in [0, 1], that nothing was multiplied by.

        Of all rows that have been counted: each input that is zero leaves a column unread. Rows
        that the kernel on a GPU takes are not counted. None: no row yet.
        """
        skipped = whole = 0
        for linear in self.linears.values():
            zeros, inputs = linear.zeros
            skipped += zeros * linear.module.out_features
            whole += inputs * linear.module.out_features
        return skipped / whole if whole else None

    @property
    def note(self) -> str:
        """Which way products of few rows went, in one line; empty: none was chosen."""
        if self._choices.missed_triton:
            return (
                "Products are dense, with zeros: there is no triton for the kernel (pip install "
                "'lightning-prune[kernels]')."
            )
        said: dict[str, list[str]] = {"columns": [], "dense": []}
        for (outputs, inputs, _, rows), trial in self._choices.trials.items():
            if trial.speed is not None:
                size = f"{outputs} x {inputs}" + (f", {rows} rows" if rows > 1 else "")
                said[trial.way].append(f"{size} ({trial.speed:.2f}x)")
        parts = [f"{_WAYS[way]} {', '.join(sizes)}" for way, sizes in said.items() if sizes]
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}. In brackets: speed to dense." if text else ""


_WAYS = {
    "columns": "columns of inputs that are not zero alone for",
    "dense": "dense products, with zeros, for",
}


@contextmanager
def sparse_activations(
    model: nn.Module, thresholds: Thresholds | Mapping[str, float] | str | Path
) -> Iterator[SparseActivations]:
    """Context in which inputs of Linears of |x| <= threshold count as zero.

    ```python
    with torch.no_grad(), sparse_activations(model, "activations.json") as sparse:
        model.generate(**inputs)
    print(f"{sparse.unread:.1%} of the weights were not needed")
    ```

    Each Linear has its own threshold; those that read the same input may have different ones. Up to
    four rows at once (decoding) are multiplied by the columns of the other inputs alone: on a GPU
    by a kernel, on the CPU where that is faster than the dense product, which the first calls find
    out. More rows, other devices, training and autocast go dense, with zeros: the numbers are the
    same but for rounding.

    Weights are laid out by columns when that is first needed, in new memory, one matrix at a time,
    and laid back at the end; their values stay. Forwards are replaced on this model's own modules,
    and are back behind the context, whatever happens in it. Of two contexts inside each other, the
    inner one counts for the Linears that it names.

    Source: TEAL (Liu et al., arXiv 2408.14690). Differs: thresholds are whatever is given, and not
    found by its search over a block.

    Args:
        model: any model with Linears.
        thresholds: by Linear's name; or a file of `lightning-prune analyze activations`, or a
            folder with activation_thresholds.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no thresholds, or some for what is no Linear of the model.
    """
    if isinstance(thresholds, (str, Path)):
        thresholds = read_thresholds(thresholds)
    known = thresholds if isinstance(thresholds, Thresholds) else None
    by_name = thresholds.thresholds if isinstance(thresholds, Thresholds) else thresholds
    linears, choices = usable_thresholds(model, thresholds), Choices()
    expected = EXPECTED if known is None else known.sparsity
    sparse = {
        name: SparseLinear(linear, by_name[name], expected, choices)
        for name, linear in linears.items()
    }
    forwards = list(sparse.values())
    try:
        with replaced_forward(linears.values(), forwards.__getitem__):
            yield SparseActivations(sparse, choices)
    finally:
        for forward in forwards:
            forward.restore()


def read_thresholds(path: str | Path) -> Thresholds:
    """Thresholds of a file, or those that were put into a model's folder.

    Args:
        path: a file of `lightning-prune analyze activations`, or a folder with
            activation_thresholds.json, which is such a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no thresholds.
    """
    path = Path(path)
    file = path / THRESHOLDS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"there are no thresholds of activations in {file}; `lightning-prune analyze "
            "activations` finds them"
        )
    return Thresholds.read(file)


def usable_thresholds(
    model: nn.Module, found: Thresholds | Mapping[str, float]
) -> dict[str, nn.Linear]:
    """The Linears that thresholds are for, by name, in the order in which the model has them.

    Args:
        model: it may be on the meta device.
        found: thresholds, perhaps with the widths that they were found at, or by Linear's name.

    Raises:
        ValueError: there are none, one is for what is no Linear of the model, or one of another
            width, or is quantised, or is below 0 or not finite.
    """
    thresholds: Mapping[str, float] = found.thresholds if isinstance(found, Thresholds) else found
    widths = found.widths if isinstance(found, Thresholds) else {}
    linears = {n: module for n, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not thresholds:
        raise ValueError("there are no thresholds; give one for a Linear at least")
    for name, threshold in thresholds.items():
        if name not in linears:
            raise ValueError(
                f"there is a threshold for {name!r}, and {type(model).__name__} has no Linear of "
                f"that name.{meant(name, list(linears))} Find the thresholds of this very model: "
                "lightning-prune analyze activations"
            )
        if (width := widths.get(name)) not in (None, linears[name].in_features):
            raise ValueError(
                f"the threshold of {name} is of {width} inputs, and {type(model).__name__} has "
                f"{linears[name].in_features} there: it was found on another model. Find those of "
                "this very model: lightning-prune analyze activations"
            )
        if not 0 <= threshold < math.inf:
            raise ValueError(f"the threshold of {name} is {threshold}; it is 0 or more, and finite")
        check_numbers(name, linears[name])
    return {name: linear for name, linear in linears.items() if name in thresholds}
