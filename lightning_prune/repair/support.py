"""The best weights on a given support, by conjugate gradients over all rows at once.

Each output feature has its own support S and its own system, H_SS w_S = t_S. A chunk of them is
solved at once, without a factorisation: the product of all search directions with H is one matrix
product, and what falls outside a support is set to zero. Inputs are scaled so that H has a diagonal
of ones, which is the Jacobi preconditioner. From a start, every step lowers the error.

Source: the backsolve of ALPS (Meng et al., arXiv 2406.07831, section 3.3).

Axes: O output features, I input features.
"""

from __future__ import annotations

import torch

from lightning_prune.repair.rows import chunks

__all__ = ["solve_on_support"]


def solve_on_support(
    unit_II: torch.Tensor,
    right_OI: torch.Tensor,
    keep_OI: torch.Tensor,
    start_OI: torch.Tensor,
    steps: int = 100,
    tolerance: float = 1e-4,
) -> torch.Tensor:
    """Conjugate gradients for H_SS w_S = t_S, S being the support of each row.

    Args:
        unit_II: H, positive definite on every support, with a diagonal of ones.
        right_OI: t.
        keep_OI: S.
        start_OI: first guess; cut to the support.
        steps: most steps to take.
        tolerance: of ||residual|| / ||t_S||; it ends when every row of a chunk has reached it.
    """
    new_OI = torch.empty_like(start_OI)
    parts = map(chunks, (new_OI, right_OI, keep_OI, start_OI))
    for new, right, keep, start in zip(*parts, strict=True):
        new.copy_(_solve_chunk(unit_II, right, keep, start, steps, tolerance))
    return new_OI


def _solve_chunk(
    unit_II: torch.Tensor,
    right_OI: torch.Tensor,
    keep_OI: torch.Tensor,
    start_OI: torch.Tensor,
    steps: int,
    tolerance: float,
) -> torch.Tensor:
    """As `solve_on_support`, of all rows at once."""
    support_OI = keep_OI.to(unit_II.dtype)  # a product is several times faster than masked_fill
    tiny = torch.finfo(unit_II.dtype).tiny
    solution_OI = start_OI * support_OI
    limit_O1 = tolerance**2 * _squares(right_OI * support_OI)
    residual_OI = (right_OI - solution_OI @ unit_II).mul_(support_OI)
    direction_OI = residual_OI.clone()
    squares_O1 = _squares(residual_OI)
    for _ in range(steps):
        if (squares_O1 <= limit_O1).all():
            break
        product_OI = direction_OI @ unit_II
        curvature_O1 = torch.linalg.vecdot(direction_OI, product_OI)[:, None]
        step_O1 = squares_O1 / curvature_O1.clamp(min=tiny)
        solution_OI.addcmul_(direction_OI, step_O1)
        residual_OI.addcmul_(product_OI, step_O1, value=-1).mul_(support_OI)
        previous_O1, squares_O1 = squares_O1, _squares(residual_OI)
        direction_OI.mul_(squares_O1 / previous_O1.clamp(min=tiny)).add_(residual_OI)
    return solution_OI


def _squares(matrix_OI: torch.Tensor) -> torch.Tensor:
    """Sum of the squares of each row, shape (O, 1)."""
    return torch.linalg.vecdot(matrix_OI, matrix_OI)[:, None]
