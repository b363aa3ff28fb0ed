"""Find a support and its weights together by alternating directions (ADMM), as ALPS does.

Source: Meng, Behdin, Wang and Mazumder, "ALPS" (arXiv 2406.07831), algorithm 1 and section 3.2; the
schedule of rho and the scaling of inputs to norm one follow the authors' code.

Two copies of the weights take turns: B fits the dense output, D satisfies the pattern, and V, which
grows with their difference, draws them together more strongly as rho rises. When the support of D
has settled, the weights on it are fitted by least squares.

Differs: rho rises by the square root of the published factors (`patience`), which costs twice the
iterations and finds a better support; it does not fall below 1e-4; the least squares run until they
are solved, not for ten steps; if least squares on the support of the largest scaled weights, where
the search starts, are better than those on the support it ends with, they are the result; (H +
rho)⁻¹ comes from a Cholesky factor whenever rho changes, instead of from one eigendecomposition in
float64.

Axes: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from lightning_prune.repair.gram import scaled_gram
from lightning_prune.repair.rows import product
from lightning_prune.repair.support import solve_on_support

__all__ = ["Project", "alps", "anneal"]

Project = Callable[[torch.Tensor], torch.Tensor]
"""score_OI to keep_OI, the same number of weights every time."""

_EVERY = 3  # iterations between two looks at the support
_SETTLED = 3e-4  # share of the support that changed since the last look, at which the search ends
_WEAKEST = 1e-4  # rho falls no further, or V / rho would be all noise
_RISE = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))  # (above this share, rho grows by this factor)


def alps(
    weight_OI: torch.Tensor,
    gram_II: torch.Tensor,
    project: Project,
    *,
    damping: float = 0.01,
    patience: float = 2.0,
    rho: float = 0.1,
    iterations: int = 300,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the weights that stay and fit them to the dense layer's output.

    Args:
        weight_OI: any floating dtype; not changed.
        gram_II: XᵀX of the layer's inputs, in any positive scale.
        project: chooses what stays from squared weights of scaled inputs; its rule is the scope
            (matrix, row, N:M).
        damping: share of the mean diagonal that is added to the diagonal.
        patience: 1 for the published schedule; P slows the rise of rho by the P-th root.
        rho: penalty to begin with.
        iterations: most iterations, times `patience`.
        dtype: to calculate in.

    Returns:
        The new weights in `dtype`, and the mask of those that stay, both (O, I).

    Raises:
        ValueError: the Gram matrix holds NaN or infinity.
    """
    scaled = scaled_gram(gram_II, damping, dtype)
    dense_OI = weight_OI.to(dtype) * scaled.norm_I
    right_OI = dense_OI @ scaled.unit_II
    guess_OI = _search(dense_OI, right_OI, scaled.unit_II, project, patience, rho, iterations)

    def solve(guess_OI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keep_OI = project(guess_OI.square())
        return solve_on_support(scaled.unit_II, right_OI, keep_OI, guess_OI), keep_OI

    def error(solution: tuple[torch.Tensor, torch.Tensor]) -> float:
        change_OI = solution[0] - dense_OI
        return float((change_OI @ scaled.unit_II).mul_(change_OI).sum())

    new_OI, keep_OI = min(solve(guess_OI), solve(dense_OI), key=error)
    return new_OI.div_(scaled.norm_I), keep_OI


def anneal(
    weight_OI: torch.Tensor,
    gram_II: torch.Tensor,
    project: Project,
    *,
    damping: float = 0.01,
    levels: int = 10,
    steps: int = 4,
    rho: tuple[float, float] = (0.1, 10.0),
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `alps`, with a schedule that is fixed beforehand, and a fraction of the iterations.

    No row depends on another, if `project` looks at rows alone.

    Args:
        weight_OI: any floating dtype; not changed.
        gram_II: XᵀX of the layer's inputs, in any positive scale.
        project: chooses what stays, as for `alps`.
        damping: share of the mean diagonal that is added to the diagonal.
        levels: how many penalties, in a geometric row.
        steps: iterations at each.
        rho: the first and the last penalty.
        dtype: to calculate in.

    Returns:
        The new weights in `dtype`, and the mask of those that stay, both (O, I).

    Raises:
        ValueError: the Gram matrix holds NaN or infinity.
    """
    scaled = scaled_gram(gram_II, damping, dtype)
    dense_OI = weight_OI.to(dtype) * scaled.norm_I
    right_OI = product(dense_OI, scaled.unit_II)
    keep_OI = project(dense_OI.square())
    sparse_OI, dual_OI = dense_OI * keep_OI, torch.zeros_like(dense_OI)
    fitted_OI = dense_OI
    growth = (rho[1] / rho[0]) ** (1 / max(levels - 1, 1))
    for level in range(levels):
        penalty = rho[0] * growth**level
        inverse_II = _inverse(scaled.unit_II, penalty)
        for _ in range(steps):
            pulled_OI = (right_OI - dual_OI).add_(sparse_OI, alpha=penalty)
            fitted_OI = product(pulled_OI, inverse_II)
            both_OI = fitted_OI.add(dual_OI, alpha=1 / penalty)
            keep_OI = project(both_OI.square())
            sparse_OI = both_OI * keep_OI
            dual_OI = both_OI.sub_(sparse_OI).mul_(penalty)
    new_OI = solve_on_support(scaled.unit_II, right_OI, keep_OI, fitted_OI)
    return new_OI.div_(scaled.norm_I), keep_OI


def _search(
    dense_OI: torch.Tensor,
    right_OI: torch.Tensor,
    unit_II: torch.Tensor,
    project: Project,
    patience: float,
    rho: float,
    iterations: int,
) -> torch.Tensor:
    """Algorithm 1: B, the weights whose largest are to stay."""
    seen_OI = project(dense_OI.square())
    start_OI = dense_OI * seen_OI
    kept = int(seen_OI.sum())
    inverse_II = _inverse(unit_II, rho)
    sparse_OI, dual_OI = start_OI, torch.zeros_like(start_OI)  # D and V
    has_risen = False
    for iteration in range(1, int(iterations * patience) + 1):
        fitted_OI = (right_OI - dual_OI).add_(sparse_OI, alpha=rho) @ inverse_II
        both_OI = fitted_OI.add(dual_OI, alpha=1 / rho)
        keep_OI = project(both_OI.square())
        sparse_OI = both_OI * keep_OI
        dual_OI = both_OI.sub_(sparse_OI).mul_(rho)
        if iteration % _EVERY:
            continue
        changed = int((keep_OI != seen_OI).sum()) / max(kept, 1)
        seen_OI = keep_OI
        if changed > _RISE[1][0] or (has_risen and changed > 0):
            factor = next(factor for above, factor in _RISE if changed > above)
            rho, has_risen = min(rho * factor ** (1 / patience), 1e6), True
        elif has_risen:
            break
        else:  # rho is so strong that nothing moves: begin again with a weaker one
            rho = max(rho / 5, _WEAKEST)
            if changed:
                sparse_OI, dual_OI = start_OI, torch.zeros_like(start_OI)
        if iteration > 30 * patience and changed < _SETTLED:
            break
        inverse_II = _inverse(unit_II, rho)
    return fitted_OI


def _inverse(unit_II: torch.Tensor, rho: float) -> torch.Tensor:
    """(H + rho)⁻¹."""
    shifted_II = unit_II.clone()
    shifted_II.diagonal().add_(rho)
    return torch.cholesky_inverse(torch.linalg.cholesky(shifted_II))
