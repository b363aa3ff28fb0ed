"""Remove weights and let the others make up for them: the Optimal Brain Surgeon of SparseGPT.

Source: Frantar and Alistarh, "SparseGPT" (arXiv 2301.00774), section 3 and algorithm 1. Columns go
from left to right; what the removal of one costs is taken over by those to its right, in the way
that changes the layer's output least. With U upper and UᵀU = H⁻¹, removing w_j adds
-w_j / U_jj · U_jk to every w_k with k > j.

Differs: H is factored as R Rᵀ with R upper, so that U = R⁻¹ is never made as a whole. Only the
tiles on the diagonal of R are inverted; between tiles, columns that are still free answer a change
D of those before them by -D R_before R_own⁻¹, which is the same in exact arithmetic. Within a tile
the columns are split in halves again and again, so that nearly all the work is matrix products.
Several matrices that share their input may be stacked along O.

Axes: O output features, I input features, B columns of one call of `select`, T columns of one tile.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lightning_prune.repair.gram import check_gram

__all__ = ["HessianFactor", "Select", "factored", "hessian_factor", "obs_prune", "saliency"]

Select = Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor]
"""(current weight_OB, diagonal_B of U, columns) to keep_OB: what stays of these columns."""

_TILE = (
    128  # columns of a tile on the diagonal; more is more inversion, fewer is more memory traffic
)


@dataclass(frozen=True)
class HessianFactor:
    """R of a damped Gram matrix R Rᵀ, for all weights that read the same input.

    Args:
        upper_II: R, upper triangular.
        dead_I: inputs that were zero throughout; weights that read them are set to zero.
        damping: the share of the mean diagonal that was added, after any retries.
    """

    upper_II: torch.Tensor
    dead_I: torch.Tensor
    damping: float

    @property
    def diagonal_I(self) -> torch.Tensor:
        """U_jj: removing w_j, with all before it fixed, costs (w_j / U_jj)²."""
        return self.upper_II.diagonal().reciprocal()


def hessian_factor(
    gram_II: torch.Tensor,
    damping: float = 0.01,
    attempts: int = 4,
    dtype: torch.dtype = torch.float32,
) -> HessianFactor:
    """Damp and factor the Gram matrix XᵀX of a layer's inputs, in any positive scale.

    Args:
        gram_II: symmetric; not changed.
        damping: share of the mean diagonal (of inputs that are not dead) added to the diagonal.
        attempts: how often to try; the damping grows tenfold each time.
        dtype: of the factor; the damping is added in the precision of the Gram matrix.

    Raises:
        ValueError: the Gram matrix holds NaN or infinity, or no attempt gave a factor.
    """
    check_gram(gram_II)
    dead_I = gram_II.diagonal() == 0
    mean = gram_II.diagonal().sum() / (~dead_I).sum().clamp(min=1)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    for attempt in range(attempts):
        strength = damping * 10**attempt
        damped_II = gram_II.clone()
        damped_II.diagonal().add_(mean * (strength + dead_I))
        lower_II, failed = torch.linalg.cholesky_ex(damped_II.to(dtype).flip(0, 1))
        if not failed:
            return HessianFactor(lower_II.flip(0, 1), dead_I, strength)
    raise ValueError(
        f"the Gram matrix of a layer's inputs ({len(gram_II)} features) is not positive definite "
        f"even with damping {strength:g}: give more calibration tokens or a larger damping than "
        f"{damping:g}"
    )


def factored(gram_II: torch.Tensor, damping: float) -> HessianFactor:
    """The factor of a Gram matrix; says so if it took more damping than was asked for."""
    factor = hessian_factor(gram_II, damping)
    if factor.damping > damping:
        warnings.warn(
            f"a Gram matrix of {len(gram_II)} inputs took damping={factor.damping:g} in place of "
            f"{damping:g}; more calibration tokens would help",
            stacklevel=2,
        )
    return factor


def saliency(weight_OB: torch.Tensor, diagonal_B: torch.Tensor) -> torch.Tensor:
    """(w / U_jj)²: the error of the layer's output that removing a weight costs (equation 5)."""
    return (weight_OB / diagonal_B).square_()


def obs_prune(
    weight_OI: torch.Tensor, factor: HessianFactor, select: Select, columns: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose and remove weights from left to right, and correct those that stay.

    Args:
        weight_OI: any floating dtype; not changed.
        factor: of the Gram matrix of the input.
        select: asked once for every so many columns, when all before them are settled. The weights
            it is shown change afterwards.
        columns: 128 for SparseGPT without pattern, M for N:M. The last may be fewer.

    Returns:
        The new weights in the factor's dtype, and the mask of those that stay, both (O, I).
    """
    upper_II = factor.upper_II
    weight_IO = upper_II.new_empty(weight_OI.t().shape).copy_(weight_OI.t())
    weight_IO[factor.dead_I] = 0
    change_IO = torch.empty_like(weight_IO)
    keep_IO = torch.empty_like(weight_IO, dtype=torch.bool)
    size = columns * max(1, _TILE // columns)
    for start in range(0, len(weight_IO), size):
        tile, before = slice(start, start + size), slice(0, start)
        own_TT = upper_II[tile, tile]
        inverse_TT = torch.linalg.solve_triangular(
            own_TT, torch.eye(len(own_TT)).to(own_TT), upper=True
        )
        shift_TO = inverse_TT.t() @ (upper_II[before, tile].t() @ change_IO[before])
        current_TO = weight_IO[tile] - shift_TO
        keep_IO[tile] = _eliminate(current_TO, inverse_TT, select, columns, start)
        torch.sub(current_TO, weight_IO[tile], out=change_IO[tile])
        weight_IO[tile] = current_TO
    return weight_IO.t().contiguous(), keep_IO.t().contiguous()


def _eliminate(
    current_TO: torch.Tensor,
    inverse_TT: torch.Tensor,
    select: Select,
    columns: int,
    first: int,
) -> torch.Tensor:
    """Algorithm 1 on the columns of one tile, in place; returns what stays.

    A piece of columns is worked on in two halves; what the first removed is then passed on to the
    second in one product.

    Args:
        current_TO: the weights, as changed by the removals before this tile.
        inverse_TT: the tile of U.
        select: as for `obs_prune`.
        columns: as for `obs_prune`.
        first: number of the tile's first column.
    """
    diagonal_T = inverse_TT.diagonal()
    unit_TT = (inverse_TT / diagonal_T[:, None]).t()
    removed_TO = torch.empty_like(current_TO)
    gone_TO = torch.empty_like(current_TO)  # 1 where a weight goes, 0 where it stays
    rows = list(zip(current_TO.unbind(), gone_TO.unbind(), removed_TO.unbind(), strict=True))

    def pass_on(start: int, middle: int, stop: int) -> None:
        current_TO[middle:stop].addmm_(
            unit_TT[middle:stop, start:middle], removed_TO[start:middle], alpha=-1
        )

    def visit_columns(start: int, stop: int) -> None:
        place = slice(first + start, first + stop)
        keep_OB = select(current_TO[start:stop].t(), diagonal_T[start:stop], place)
        gone_TO[start:stop] = ~keep_OB.t()
        _in_halves(start, stop, 1, visit_column, pass_on)

    def visit_column(column: int, _: int) -> None:
        current_O, gone_O, removed_O = rows[column]
        torch.mul(current_O, gone_O, out=removed_O)

    _in_halves(0, len(current_TO), columns, visit_columns, pass_on)
    current_TO.sub_(removed_TO)
    return gone_TO == 0


def _in_halves(
    start: int,
    stop: int,
    step: int,
    visit: Callable[[int, int], None],
    pass_on: Callable[[int, int, int], None],
) -> None:
    """Visit columns from left to right, `step` at a time, in halves of halves.

    A function of its own: one inside of `_eliminate` that calls itself would keep that call's
    matrices until Python looks for circles.
    """
    if stop - start <= step:
        visit(start, stop)
        return
    middle = start + -(-(stop - start) // (2 * step)) * step
    _in_halves(start, middle, step, visit, pass_on)
    pass_on(start, middle, stop)
    _in_halves(middle, stop, step, visit, pass_on)
