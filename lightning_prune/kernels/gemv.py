"""A split-K product of few rows with a weight, in Triton, that reads the columns it needs only.

    y_b = sum over i with |x_bi| > threshold of x_bi * w[:, i]

Source: the kernels of Deja Vu (Liu et al., arXiv 2310.17157) and TEAL (Liu et al., arXiv
2408.14690), which take one row in fp16.

Differs: up to four rows, in fp16, bf16 and fp32. Each program sums its part of the inputs in fp32,
and a second kernel adds the parts up in a fixed order; theirs adds them atomically in fp16, where
the order, and so the result, differs from run to run, and which bf16 does not have. Both edges are
masked. Columns are read for the rows together: one is left out if no row needs it.

A launch is chosen once for each shape, type, number of rows and tenth of sparsity, by timing both
kernels with a cold cache. Another launch rounds otherwise: results repeat within a process.

Axes: B rows, I input features, O output features, S parts of the inputs (splits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.testing import do_bench

from lightning_prune.kernels.layout import is_column_major

__all__ = ["DTYPES", "ROWS", "Launch", "launches", "sparse_gemv"]

ROWS = 4
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

_SUM_BLOCK = 64


class Launch(NamedTuple):
    """How a product is divided.

    Attributes:
        block_O: outputs of a program.
        block_I: inputs that a program reads at a time.
        splits: parts that the inputs are divided into; a power of 2.
        warps: of a program.
    """

    block_O: int
    block_I: int
    splits: int
    warps: int


DEFAULT = Launch(256, 16, 32, 4)


def launches(inputs: int) -> list[Launch]:
    """Those that are tried for a number of input features."""
    tiles = [(128, 16, 4), (256, 16, 4), (256, 32, 8), (512, 16, 8)]
    return [
        Launch(block_O, block_I, splits, warps)
        for block_O, block_I, warps in tiles
        for splits in (8, 16, 32, 64, 128)
        if splits == 8 or (splits - 1) * block_I < inputs
    ]


_CHOSEN: dict[tuple[object, ...], Launch] = {}


def sparse_gemv(
    input_BI: torch.Tensor,
    weight_OI: torch.Tensor,
    threshold: float,
    bias_O: torch.Tensor | None = None,
    sparsity: float = 0.5,
    launch: Launch | None = None,
) -> torch.Tensor:
    """`nn.functional.linear` of few rows, where inputs of |x| <= threshold count as zero.

    Weights are read once for all rows; those of an input that is zero in all of them are not.

    Args:
        input_BI: one to four rows, fp16, bf16 or fp32, on the weight's device.
        weight_OI: laid out by columns; see `layout.column_major`.
        threshold: 0 or more.
        bias_O: added at last, in fp32.
        sparsity: the share of inputs that is expected to be zero; the launch is chosen by it.
        launch: how the product is divided; None: as was fastest here, found by the first call.

    Returns:
        The product (B, O), in the input's type.

    Raises:
        ValueError: shapes, types, devices or the layout are others.
    """
    _check(input_BI, weight_OI, bias_O)
    input_BI = input_BI.contiguous()

    def run(launch: Launch) -> torch.Tensor:
        return _run(input_BI, weight_OI, threshold, bias_O, launch)

    if launch is not None:
        return run(launch)
    tenth = round(10 * sparsity)
    key = (weight_OI.shape, weight_OI.dtype, weight_OI.device, len(input_BI), tenth)
    if key not in _CHOSEN:
        if not weight_OI.is_cuda or torch.cuda.is_current_stream_capturing():
            return run(DEFAULT)
        _CHOSEN[key] = _fastest(run, launches(weight_OI.shape[1]))
    return run(_CHOSEN[key])


def _fastest(run: Callable[[Launch], torch.Tensor], tried: list[Launch]) -> Launch:
    seconds = {one: do_bench(lambda one=one: run(one), warmup=2, rep=10) for one in tried}
    return min(seconds, key=seconds.__getitem__)


def _run(
    input_BI: torch.Tensor,
    weight_OI: torch.Tensor,
    threshold: float,
    bias_O: torch.Tensor | None,
    launch: Launch,
) -> torch.Tensor:
    (outputs, inputs), rows, splits = weight_OI.shape, len(input_BI), launch.splits
    partial_SBO = input_BI.new_empty((splits, rows, outputs), dtype=torch.float32)
    output_BO = input_BI.new_empty((rows, outputs))
    _partial_kernel[(triton.cdiv(outputs, launch.block_O), splits)](
        input_BI,
        weight_OI,
        partial_SBO,
        threshold,
        outputs,
        inputs,
        weight_OI.stride(1),
        triton.cdiv(inputs, splits * launch.block_I),
        ROWS=rows,
        BLOCK_O=launch.block_O,
        BLOCK_I=launch.block_I,
        num_warps=launch.warps,
    )
    _sum_kernel[(triton.cdiv(outputs, _SUM_BLOCK), rows)](
        partial_SBO,
        output_BO if bias_O is None else bias_O,
        output_BO,
        outputs,
        ROWS=rows,
        SPLITS=splits,
        BIAS=bias_O is not None,
        BLOCK_O=_SUM_BLOCK,
    )
    return output_BO


@triton.jit
def _partial_kernel(  # type: ignore[no-untyped-def]
    input_ptr,
    weight_ptr,
    partial_ptr,
    threshold,
    outputs,
    inputs,
    column,  # from the beginning of one column to that of the next
    steps,
    ROWS: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """One part of the inputs, for some of the outputs: (S, B, O)."""
    output = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    split = tl.program_id(1)
    # Padding is read, too: a column's end is a multiple of 16 there, so that no load is cut up.
    is_column = (output < column)[None, :]
    totals = ()
    for _ in tl.static_range(ROWS):
        totals += (tl.zeros((BLOCK_I, BLOCK_O), dtype=tl.float32),)  # type: ignore[assignment]
    for step in range(steps):
        index = (split * steps + step) * BLOCK_I + tl.arange(0, BLOCK_I)
        active = index < 0
        row_inputs = ()
        for row in tl.static_range(ROWS):
            x = tl.load(input_ptr + row * inputs + index, mask=index < inputs, other=0.0)
            x = x.to(tl.float32)
            x = tl.where(tl.abs(x) <= threshold, 0.0, x)
            active = active | (x != 0.0)
            row_inputs += (x,)  # type: ignore[assignment]
        weight = tl.load(
            weight_ptr + index.to(tl.int64)[:, None] * column + output[None, :],
            mask=active[:, None] & is_column,
            other=0.0,
            eviction_policy="evict_first",
        ).to(tl.float32)
        sums = ()
        for row in tl.static_range(ROWS):
            sums += (totals[row] + row_inputs[row][:, None] * weight,)  # type: ignore[assignment]
        totals = sums
    for row in tl.static_range(ROWS):
        place = partial_ptr + (split * ROWS + row) * outputs + output
        tl.store(place, tl.sum(totals[row], axis=0), mask=output < outputs)


@triton.jit
def _sum_kernel(  # type: ignore[no-untyped-def]
    partial_ptr,
    bias_ptr,
    output_ptr,
    outputs,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """All parts together, for one row: (B, O)."""
    output = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    row = tl.program_id(1)
    place = (tl.arange(0, SPLITS)[:, None] * ROWS + row) * outputs + output[None, :]
    parts = tl.load(partial_ptr + place, mask=(output < outputs)[None, :], other=0.0)
    total = tl.sum(parts, axis=0)
    if BIAS:
        total += tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    result = total.to(output_ptr.dtype.element_ty)
    tl.store(output_ptr + row * outputs + output, result, mask=output < outputs)


def _check(input_BI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> None:
    shapes = f"an input of {tuple(input_BI.shape)} and a weight of {tuple(weight_OI.shape)}"
    if input_BI.ndim != 2 or weight_OI.ndim != 2 or input_BI.shape[1] != weight_OI.shape[1]:
        raise ValueError(f"{shapes} do not fit; the input is (rows, {weight_OI.shape[-1]})")
    if not 1 <= len(input_BI) <= ROWS:
        raise ValueError(f"{len(input_BI)} rows; the kernel takes 1 to {ROWS}, others go dense")
    if weight_OI.dtype not in DTYPES or input_BI.dtype != weight_OI.dtype:
        raise ValueError(
            f"an input of {input_BI.dtype} and a weight of {weight_OI.dtype}; both are of one of "
            f"{', '.join(map(str, DTYPES))}"
        )
    if not is_column_major(weight_OI):
        raise ValueError("the weight is laid out by rows; give layout.column_major(weight)")
    if bias_O is not None and bias_O.shape != weight_OI.shape[:1]:
        raise ValueError(f"a bias of {tuple(bias_O.shape)} for {weight_OI.shape[0]} outputs")
    if not weight_OI.is_cuda and isinstance(_partial_kernel, triton.runtime.JITFunction):
        raise ValueError(
            f"the kernel runs on a GPU, and the weight is on {weight_OI.device}; set "
            "TRITON_INTERPRET=1 before it is imported to try it on the CPU"
        )
