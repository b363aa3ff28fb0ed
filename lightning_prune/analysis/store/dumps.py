"""Old dumps of pruned matrices: `layer{N}-{component}-…-{sparsity}.pt`, a tensor a file.

Axes: O output features, I input features.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch

from lightning_prune.analysis.store.described import matrix_rows
from lightning_prune.analysis.store.rows import Row, Run
from lightning_prune.analysis.zeros import matrix_zeros

__all__ = ["runs_of_dumps"]

NAMED = re.compile(
    r"layer(?P<block>\d+)-(?P<kind>[\w.]+)-(?:(?P<words>.+)-)?(?P<sparsity>\d*\.?\d+)\.pt"
)
PARENTS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn"),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp"),
}
"""What a projection that is named by itself belongs to."""


def runs_of_dumps(folder: str | Path) -> list[Run]:
    """A run for each method and sparsity that the files of a folder are named by.

    The words between component and sparsity are the method and whatever else the name says, as in
    `layer3-down_proj-wanda-unstructured-0.5.pt`. Nothing but tensors is unpickled, one at a time.

    Raises:
        FileNotFoundError: there is no folder, or no such file in it.
        ValueError: a file is damaged, or holds something else than one matrix.
    """
    folder = Path(folder)
    named = {file: place for file in sorted(folder.glob("*.pt")) if (place := _place(file))}
    if not named:
        raise FileNotFoundError(
            f"no dumps in {str(folder)!r}; their names are as in layer3-down_proj-wanda-0.5.pt"
        )
    rows: dict[tuple[str, float], list[Row]] = {}
    for file, place in named.items():
        key = (place["words"] or "unknown", float(place["sparsity"]))
        rows.setdefault(key, []).extend(_rows(file, place))
    return [
        Run(
            "dumps",
            folder.name,
            method=words.partition("-")[0],
            call=words,
            sparsity=sparsity,
            folder=str(folder),
            rows=found,
        )
        for (words, sparsity), found in rows.items()
    ]


def _place(file: Path) -> re.Match[str] | None:
    return NAMED.fullmatch(file.name)


def _rows(file: Path, place: re.Match[str]) -> Iterator[Row]:
    kind = place["kind"]
    kind = f"{PARENTS[kind]}.{kind}" if kind in PARENTS else kind
    name = f"model.layers.{int(place['block'])}.{kind}.weight"
    yield from matrix_rows("pruned", matrix_zeros({name: _matrix(file)}))


def _matrix(file: Path) -> torch.Tensor:
    """The matrix in a file, (O, I)."""
    try:
        with warnings.catch_warnings():  # of pickles that torch did not write; they are refused
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged, or holds more than tensors, which is not unpickled"
        ) from error
    values = list(found.values()) if isinstance(found, dict) else [found]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].ndim != 2:
        what = f"{len(values)} values" if len(values) != 1 else f"a {type(values[0]).__name__}"
        if len(values) == 1 and isinstance(values[0], torch.Tensor):
            what = f"a tensor of {values[0].ndim} axes"
        raise ValueError(f"{file} holds {what}; a dump is one matrix of output by input features")
    weight_OI = values[0].to_dense() if values[0].layout != torch.strided else values[0]
    return weight_OI if weight_OI.is_floating_point() else weight_OI.float()
