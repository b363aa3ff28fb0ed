"""What the loss feels of weights, by its first and second derivatives, and of whole units.

Source: Ma, Fang, Wang, "LLM-Pruner", arXiv 2305.11627, equations 3 to 5.

Axes: U units of one block, S features of one unit in one site, K of those in the narrowest site,
M members of a unit, D hidden size, O output, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import Gradients

__all__ = ["Grouping", "Mode", "folded", "salience", "taylor_score"]


Mode = Literal["vectorize", "param_first", "param_second", "param_mix"]


Grouping = Literal["sum", "mean", "max", "prod", "first"]


_GROUPING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda score_MUK: score_MUK.sum(dim=0),
    "mean": lambda score_MUK: score_MUK.mean(dim=0),
    "max": lambda score_MUK: score_MUK.amax(dim=0),
    "prod": lambda score_MUK: score_MUK.prod(dim=0),
    "first": lambda score_MUK: score_MUK[0],
}


def salience(evidence: Gradients, mode: Mode) -> torch.Tensor:
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
