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

Axes: U units of one block, S features of one unit in one site, K of those in the narrowest site,
M members of a unit, D hidden size, O output, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.evidence import GradientEvidence, SquaredGradientEvidence

__all__ = ["Grouping", "Mode", "Taylor", "folded", "salience", "taylor_score"]

Mode = Literal["vectorize", "param_first", "param_second", "param_mix"]
Grouping = Literal["sum", "mean", "max", "prod", "first"]

_GROUPING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda score_MUK: score_MUK.sum(dim=0),
    "mean": lambda score_MUK: score_MUK.mean(dim=0),
    "max": lambda score_MUK: score_MUK.amax(dim=0),
    "prod": lambda score_MUK: score_MUK.prod(dim=0),
    "first": lambda score_MUK: score_MUK[0],
}


def salience(evidence: GradientEvidence, mode: Mode) -> torch.Tensor:
    """What every weight is worth to the loss by a mode, signed, (O, I).

    Args:
        evidence: of the weight; with squares for param_second and param_mix.
        mode: of the table above.
    """
    if mode in ("vectorize", "param_first"):
        return evidence.first_OI
    second_OI = evidence.weight_OI.float().square() * evidence.square_OI
    return second_OI if mode == "param_second" else evidence.first_OI - second_OI / 2


def folded(part_US: torch.Tensor, features: int) -> torch.Tensor:
    """The features of a unit's query heads, added up over the heads, as wide as one: (U, K, …).

    Args:
        part_US: numbers of the S features of every unit, and perhaps more axes.
        features: K, of which S is a multiple.
    """
    return part_US.unflatten(1, (-1, features)).sum(dim=1)


def taylor_score(
    block: Block,
    kind: str,
    saliency: Mapping[str, torch.Tensor],
    vectorize: bool = False,
    grouping: Grouping = "sum",
) -> torch.Tensor:
    """The score of every unit, (U,).

    Args:
        block: the block.
        kind: "group": rows of q, k, v and columns of o; "neuron": rows of gate and up, columns of
            down.
        saliency: by weight name, one number per weight, (O, I).
        vectorize: add up with signs within a feature, else magnitudes.
        grouping: how the members of a unit make one score.
    """
    units, members = block.units(kind), list(block.members(kind))
    narrow = min(member.size for member in members)
    parts = []
    for member in members:
        part_USD = member.gather(saliency[member.site.weight_name], units)
        score_US = part_USD.sum(dim=2).abs() if vectorize else part_USD.abs().sum(dim=2)
        parts.append(folded(score_US, narrow))
    return _GROUPING[grouping](torch.stack(parts)).sum(dim=1)


class Taylor(UnitPruning):
    """Remove the GQA groups and MLP neurons that the loss would miss least, by its derivatives.

    ```python
    Taylor(ratio=0.25)
    Taylor(ratio=0.25, mode="param_mix", layer_start=4, layer_end=30)
    ```

    Args:
        ratio: as in `UnitPruning`.
        mode: "param_first", "param_second", "param_mix" or "vectorize".
        grouping: how the Linears that a unit reaches into make one score: "sum", "mean", "max",
            "prod", or "first", which is the query or the gate projection alone.
        settings: the arguments of `UnitPruning`.

    Raises:
        ValueError: an unknown mode or grouping.
    """

    evidence: type[GradientEvidence] = GradientEvidence

    def __init__(
        self,
        ratio: float | None = None,
        mode: Mode = "param_first",
        grouping: Grouping = "sum",
        **settings: Any,
    ) -> None:
        super().__init__(ratio, **settings)
        if mode not in get_args(Mode) or grouping not in get_args(Grouping):
            raise ValueError(
                f"mode={mode!r}, grouping={grouping!r}: mode is one of "
                f"{', '.join(get_args(Mode))}, and grouping one of {', '.join(get_args(Grouping))}"
            )
        self.mode, self.grouping = mode, grouping
        if mode in ("param_second", "param_mix"):
            self.evidence = SquaredGradientEvidence

    def score(
        self, block: Block, evidence: Mapping[str, GradientEvidence]
    ) -> dict[str, torch.Tensor]:
        """Score every unit of every kind asked for."""
        saliency = {name: salience(one, self.mode) for name, one in evidence.items()}
        vectorize = self.mode == "vectorize"
        return {
            kind: taylor_score(block, kind, saliency, vectorize, self.grouping)
            for kind in self.kinds_of(block)
        }
