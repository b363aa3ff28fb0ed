"""DropBlocks: take whole blocks out, or their attention or MLP alone.

Source: Men et al., "ShortGPT", arXiv 2403.03853 (the blocks that change least what passes through
them go, wherever they are); Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers",
arXiv 2403.17887 (consecutive ones, by the angle between the input of the first and the output of
the last); Sandri et al., "2SSP" (attention alone).
Differs: influence is the mean over all calibration tokens (that of Gromov and of 2SSP is of the
last token of each window), with the cosine clamped; "removal" measures each part alone, once, on
several calibration windows (2SSP on one, anew after each attention that it has dropped); any block
may go (2SSP keeps the first).
"""

from __future__ import annotations

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import BlockEvidence, Measure, Removal
from lightning_prune.evidence.influence import measure
from lightning_prune.methods.blocks import BlockPruning

__all__ = ["DropBlocks"]


class DropBlocks(PruningCallback, BlockPruning):
    """Make the model shallower: the blocks of least influence go.

    What is left is numbered anew. Without whole blocks it is a stock model; without the attention
    or the MLP of some it needs a class of its own.

    ```python
    DropBlocks(count=8)                                           # ShortGPT
    DropBlocks(count=8, measure="angular", contiguous=True)       # Gromov et al.
    DropBlocks(count=6, part="attention", measure="removal")
    DropBlocks(indices=[21, 22, 23])
    ```

    Args:
        count: how many to drop. Give one of `count`, `ratio` and `indices`, or a plan.
        indices: which ones; nothing is measured.
        measure: "cosine" (block influence), "angular", "mse" or "mae": how much a block changes
            what passes through it; "removal": what the perplexity of calibration windows rises by
            without it.
        contiguous: drop consecutive blocks, those which together have the least influence.
        part: "block", or its "attention" or "mlp" alone.
        windows: calibration windows to measure "removal" on; 0: all.

    Raises:
        ValueError: an argument is out of range, or two say how many.
    """

    measure: Measure = "cosine"
    windows: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("measure", self.measure != "norm", "a large output is no influence")
        self.require("windows", self.windows >= 0, "it is 1 or more calibration windows, or 0: all")
        whole = not (self.contiguous and self.measure == "removal")
        self.require("measure", whole, "contiguous=True goes by what blocks change together")

    @property
    def evidence(self) -> BlockEvidence | Removal | None:
        """What the measure asks for."""
        if self.indices is not None:
            return None
        return measure(self.measure, self.part, self.windows)  # type: ignore[return-value]
