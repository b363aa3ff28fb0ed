"""RIA: relative importance and activations, so that no input or output feature is lost whole.

Source: Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning
Method for Large Language Models", ICLR 2024, equations 3 and 4.
Needs the norm of every input feature: one forward pass, and a second to propagate (order="block").

Axes: O output features, I input features.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.evidence import InputNorm

__all__ = ["RIA", "ria_score"]


def ria_score(weight_OI: torch.Tensor, norm_I: torch.Tensor, power: float = 0.5) -> torch.Tensor:
    """(|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) · ||X_j||^power in fp32, shape (O, I).

    Args:
        weight_OI: the weight.
        norm_I: L2 norm of every input feature over the calibration tokens.
        power: of the norms.
    """
    size_OI = weight_OI.detach().abs().float()
    tiny = torch.finfo(torch.float32).tiny  # a feature of zeros has no importance, not NaN
    of_input_I = size_OI.sum(dim=0).clamp(min=tiny)
    of_output_O1 = size_OI.sum(dim=1, keepdim=True).clamp(min=tiny)
    return (size_OI / of_input_I + size_OI / of_output_O1) * norm_I**power


class RIA(WeightPruning):
    """Zero the weights of lowest relative importance times input norm.

    ```python
    RIA(sparsity=0.5)
    RIA(pattern="2:4")
    ```

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        power: of the input norms.
        settings: the arguments of `WeightPruning`.
    """

    evidence = InputNorm
    own_scope = "row"

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        power: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, **settings)
        if power < 0:
            raise ValueError(f"power={power} must not be negative; 0.5 is usual, 0 ignores inputs")
        self.power = power

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """Relative importance times input norms."""
        return ria_score(site.module.weight, evidence.to(site.module.weight.device), self.power)
