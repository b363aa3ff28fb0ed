"""Units scored by the products w·g of their weights, with their signs.

Source: Kobayashi et al., "Structured Pruning of Large Language Models via Power Transformation and
Sign-Preserving Score Aggregation with Adaptive Feature Retention", arXiv 2607.08027, and its code.

Axes: U units of one block, E elements of a unit (features times hidden size), D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import Gradients
from lightning_prune.scores.taylor import folded

__all__ = ["Aggregate", "aggregate_units", "score_units", "unit_products"]


Aggregate = Literal["mean_abs", "snr", "mean"]


def unit_products(block: Block, kind: str, products: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The products of a unit, added up with their signs over the Linears it reaches into, (U, E).

    For a neuron that is w·g of its gate row, its up row and its down column, element by element
    of the hidden size. For a GQA group it is that of each feature of a head: the key, the value,
    and all query heads of the group with their output columns.

    Args:
        block: the block.
        kind: "group" or "neuron".
        products: by weight name, (O, I).
    """
    units, members = block.units(kind), list(block.members(kind))
    narrow = min(member.size for member in members)
    parts = [
        folded(member.gather(products[member.site.weight_name], units), narrow)
        for member in members
    ]
    return torch.stack(parts).sum(dim=0).flatten(1)


def aggregate_units(
    product_UE: torch.Tensor, aggregate: Aggregate, trim: float = 0.0, signed: bool = True
) -> torch.Tensor:
    """One score of the products of each unit, (U,).

    Args:
        product_UE: the products.
        aggregate: "mean_abs": the magnitude of their mean; "snr": that over their standard
            deviation (unbiased); "mean": their mean.
        trim: fraction of the elements that is left out at either end of a unit, the lowest and the
            highest ones. Where it makes up no element nothing is left out.
        signed: False: of the magnitudes of the products, so that opposite ones do not cancel.
    """
    value_UE = product_UE if signed else product_UE.abs()
    elements = value_UE.shape[1]
    cut = int(elements * trim)
    if cut:
        value_UE = value_UE.sort(dim=1).values[:, cut : elements - cut]
    mean_U = value_UE.mean(dim=1)
    if aggregate == "mean":
        return mean_U
    if aggregate == "mean_abs":
        return mean_U.abs()
    return mean_U.abs() / (value_UE.std(dim=1) + 1e-8)


def score_units(
    block: Block,
    kinds: Sequence[str],
    evidence: Mapping[str, Gradients],
    aggregate: Aggregate,
    trim: float,
    signed: bool,
) -> dict[str, torch.Tensor]:
    """The score of every unit of every kind, from the gradients of a block."""
    products = {name: accumulated.first_OI for name, accumulated in evidence.items()}
    return {
        kind: aggregate_units(unit_products(block, kind, products), aggregate, trim, signed)
        for kind in kinds
    }
