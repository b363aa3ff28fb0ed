"""Whole units removed one after the other, each time the cheapest, the others making up for it.

Axes: O output features, I input features, U units, S features of a unit.
"""

from __future__ import annotations

import torch

from lightning_prune.repair.gram import check_gram, positive_solve

__all__ = ["greedy_removal"]

_STALE = 0.125  # share of features that are gone, at which the others are moved together


def greedy_removal(
    weight_OI: torch.Tensor,
    gram_II: torch.Tensor,
    size: int = 1,
    damping: float = 0.01,
    per_step: int = 1,
) -> torch.Tensor:
    """The error of a layer's output when a unit and all that are cheaper than it are gone.

    Removing the features S of a unit, with H the damped Gram matrix and the best answer of all
    other weights, costs tr(W_S ((H⁻¹)_SS)⁻¹ W_Sᵀ). The cheapest goes, W and H⁻¹ become those of
    what is left, and so on until nothing is.

    Args:
        weight_OI: the weights of the layer that reads the units.
        gram_II: XᵀX of its inputs, in any positive scale.
        size: consecutive features of a unit.
        damping: share of the mean diagonal added to the diagonal.
        per_step: units removed between two looks at the costs.

    Returns:
        By unit, (U,) float64, the relative squared error ||X(W - W')||² / ||XW||² (of the damped
        problem) with it and all before it gone; rising in the order of removal.

    Raises:
        ValueError: the Gram matrix is not finite.
    """
    check_gram(gram_II)
    damped_II = gram_II.to(torch.float64, copy=True)
    ridge = damping * damped_II.diagonal().mean()
    damped_II.diagonal().add_(ridge if ridge > 0 else torch.ones_like(ridge))
    weight_OI = weight_OI.to(torch.float64, copy=True)
    total = (weight_OI @ damped_II).mul_(weight_OI).sum().clamp(min=1e-300)
    inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(damped_II))
    units = weight_OI.shape[1] // size
    place_US = torch.arange(units * size, device=weight_OI.device).view(units, size)
    left_I = torch.ones(weight_OI.shape[1], dtype=torch.bool, device=weight_OI.device)
    alive_U = torch.arange(units, device=weight_OI.device)
    error_U = torch.zeros(units, dtype=torch.float64, device=weight_OI.device)
    error, stale = torch.zeros_like(total), 0
    while len(alive_U):
        if stale > _STALE * len(left_I):
            weight_OI, inverse_II = weight_OI[:, left_I], inverse_II[left_I][:, left_I]
            place_US = (left_I.cumsum(0) - 1)[place_US]
            left_I, stale = left_I[left_I], 0
        cost_U = _costs(weight_OI, inverse_II, place_US)
        cheapest = cost_U.argsort(stable=True)
        gone, left = cheapest[:per_step], cheapest[per_step:].sort().values
        error_U[alive_U[gone]] = error + cost_U[gone].cumsum(0)
        error = error_U[alive_U[gone[-1]]]
        removed = place_US[gone].flatten()
        left_I[removed], stale = False, stale + len(removed)
        alive_U, place_US = alive_U[left], place_US[left]
        if len(alive_U):
            _remove(weight_OI, inverse_II, removed)
    return error_U / total


def _costs(
    weight_OI: torch.Tensor, inverse_II: torch.Tensor, feature_US: torch.Tensor
) -> torch.Tensor:
    """What removing each unit alone costs, (U,): tr(W_S ((H⁻¹)_SS)⁻¹ W_Sᵀ)."""
    if feature_US.shape[1] == 1:
        index_U = feature_US[:, 0]
        squares_U = weight_OI[:, index_U].square().sum(dim=0)
        return squares_U / inverse_II.diagonal()[index_U].clamp(min=1e-300)
    own_USS = inverse_II[feature_US[:, :, None], feature_US[:, None, :]]
    weight_USO = weight_OI.mT[feature_US]
    solved_USO = positive_solve(own_USS, weight_USO)
    return (solved_USO * weight_USO).sum(dim=(1, 2))


def _remove(weight_OI: torch.Tensor, inverse_II: torch.Tensor, gone_S: torch.Tensor) -> None:
    """Make W and H⁻¹ those of the features that are left, in place."""
    rows_SI = inverse_II[gone_S]
    solved_SI = positive_solve(rows_SI[:, gone_S], rows_SI)
    weight_OI.addmm_(weight_OI[:, gone_S], solved_SI, alpha=-1)
    inverse_II.addmm_(rows_SI.mT, solved_SI, alpha=-1)
    weight_OI[:, gone_S] = 0
    inverse_II[gone_S] = 0
    inverse_II[:, gone_S] = 0
