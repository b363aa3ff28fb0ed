"""GQA-aware Taylor pruning: the heads and neurons that the loss would miss least go.

Source: Ma, Fang, Wang, "LLM-Pruner", arXiv 2305.11627, equation 5, first order, element-wise: the
score of a weight is |w · ∂L/∂w|, of a unit the sum over all its weights.
Needs gradients of the whole calibration set on the dense model: one forward pass, and one forward
and backward pass block by block.
Differs from LLM-Pruner's code: the query heads that are scored with a key/value head are the ones
that use it. (Its fold adds heads h, h + Hkv, h + 2·Hkv, … to key/value head h.)

Axes: U units of one block, S features of one unit in one site, O output, I input features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.evidence import GradientEvidence

__all__ = ["GQATaylor", "taylor_score"]


def taylor_score(block: Block, kind: str, saliency: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Sum the saliency of all the weights of each unit.

    Args:
        block: the block.
        kind: "group": rows of q, k, v and columns of o; "neuron": rows of gate and up, columns of
            down.
        saliency: by weight name, one non-negative number per weight, (O, I).

    Returns:
        One score a unit, (U,).
    """
    units = block.units(kind)
    parts = [
        member.gather(saliency[member.site.weight_name], units).sum(dim=(1, 2))
        for member in block.members(kind)
    ]
    return torch.stack(parts).sum(dim=0)


class GQATaylor(UnitPruning):
    """Remove the GQA groups and MLP neurons of lowest Σ |w · ∂L/∂w|.

    A group is removed whole: its key/value head with all query heads that share it, so the number
    of query heads per key/value head stays as it is.

    ```python
    GQATaylor(ratio=0.25)
    GQATaylor(ratio=0.25, attention=False, layer_start=4, layer_end=30)
    ```

    Args:
        ratio: fraction of the units to remove from each block, in (0, 1). Needed unless a plan is
            given.
        attention: remove GQA groups: query heads with the key/value head that they share.
        mlp: remove MLP neurons.
        settings: the arguments of `PruningCallback`.
    """

    evidence = GradientEvidence

    def score(
        self, block: Block, evidence: Mapping[str, GradientEvidence]
    ) -> dict[str, torch.Tensor]:
        """Score every unit of every kind asked for."""
        saliency = {name: one.absolute_OI for name, one in evidence.items()}
        return {kind: taylor_score(block, kind, saliency) for kind in self.kinds}
