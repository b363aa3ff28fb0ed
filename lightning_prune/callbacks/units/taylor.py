"""Taylor pruning: the heads and neurons that the loss would miss least go.

Source: Ma, Fang, Wang, "LLM-Pruner: On the Structural Pruning of Large Language Models", arXiv
2305.11627, equations 3 to 5, and the options of its code. With g = ∂L/∂w of the mean loss and F the
mean over sequences of the squares of their own gradients (the diagonal of the empirical Fisher
matrix), the score of a feature (a row or a column of a weight) is

    vectorize      |Σ w g|
    param_first    Σ |w g|
    param_second   Σ |w F w|
    param_mix      Σ |w g - ½ w F w|

and that of a unit is what `grouping` makes of its features in the Linears that it reaches into,
summed over its features. (L2 and L1 norms are `MagnitudeSP`.)
Needs one forward and backward pass over the calibration set on the dense model.
Differs from LLM-Pruner's code: the query heads that are scored with a key/value head are the ones
that use it. (Its fold adds heads h, h + Hkv, h + 2·Hkv, … to key/value head h.)

Axes: U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Gradients
from lightning_prune.methods.units import UnitPruning
from lightning_prune.scores.taylor import Grouping, Mode, salience, taylor_score

__all__ = ["Taylor"]


class Taylor(PruningCallback, UnitPruning):
    """Remove the GQA groups and MLP neurons that the loss would miss least, by its derivatives.

    ```python
    Taylor(ratio=0.25)
    Taylor(ratio=0.25, mode="param_mix", layer_start=4, layer_end=30)
    ```

    Args:
        mode: "param_first", "param_second", "param_mix" or "vectorize".
        grouping: how the Linears that a unit reaches into make one score: "sum", "mean", "max",
            "prod", or "first", which is the query or the gate projection alone.

    Raises:
        ValueError: an unknown mode or grouping.
    """

    score_bytes = 7.5

    mode: Mode = "param_first"
    grouping: Grouping = "sum"

    @property
    def evidence(self) -> Gradients:
        """Gradients of the loss, with squares for terms of second order."""
        return Gradients(squares=self.mode in ("param_second", "param_mix"))

    def score(self, block: Block, evidence: Mapping[str, Gradients]) -> dict[str, torch.Tensor]:
        """Score every unit of every kind asked for."""
        saliency = {name: salience(gradients, self.mode) for name, gradients in evidence.items()}
        vectorize = self.mode == "vectorize"
        return {
            kind: taylor_score(block, kind, saliency, vectorize, self.grouping)
            for kind in self.kinds_of(block)
        }
