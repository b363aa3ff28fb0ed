"""What runs in place of a Linear's forward while its inputs are under a threshold.

Axes: B rows, I input features, O output features; leading axes of inputs are left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch
from torch import nn

from lightning_prune.kernels.columns import sum_of_columns
from lightning_prune.kernels.layout import column_major, is_column_major, row_major
from lightning_prune.kernels.reference import is_small
from lightning_prune.kernels.trial import Trial

__all__ = ["ROWS", "Choices", "SparseLinear"]

ROWS = 4
"""At most so many rows are decoding; more are a prompt, or a text, and go dense."""

Product = tuple[int, int, torch.dtype, int]
"""O, I, type of the weight, and number of rows."""


@dataclass
class Choices:
    """What the Linears of one model share: which way they go.

    Attributes:
        trials: on the CPU, by product.
        has_triton: whether there is what the kernel for GPUs needs.
        missed_triton: whether a model on a GPU went without it.
    """

    trials: dict[Product, Trial] = field(default_factory=lambda: defaultdict(Trial))
    has_triton: bool = field(default_factory=lambda: find_spec("triton") is not None)
    missed_triton: bool = False


class SparseLinear:
    """A Linear whose inputs of |x| <= threshold count as zero.

    Its weight is laid out by columns when they are first read, and laid back by `restore`.

    Args:
        module: the Linear; its weight and bias are used as they are at each call.
        threshold: 0 or more.
        sparsity: share of the inputs that is expected to be zero.
        choices: of the model.
    """

    def __init__(
        self, module: nn.Linear, threshold: float, sparsity: float, choices: Choices
    ) -> None:
        self.module, self.threshold, self.sparsity = module, threshold, sparsity
        self._choices = choices
        self._was_column_major = is_column_major(module.weight)
        self._zeros, self._inputs = torch.zeros((), dtype=torch.int64), 0

    def __call__(self, input_I: torch.Tensor) -> torch.Tensor:
        """The product, in the way that fits the number of rows, the device, and what is faster."""
        weight_OI = self.module.weight
        rows = input_I.shape[:-1].numel()
        takes = input_I.dtype == weight_OI.dtype and not (
            self._trains(input_I) or torch.is_autocast_enabled(weight_OI.device.type)
        )
        if not (takes and 1 <= rows <= ROWS):
            return self._dense(input_I, self._small(input_I))
        if weight_OI.is_cuda:
            return self._on_gpu(input_I)
        if weight_OI.device.type == "cpu":
            return self._on_cpu(input_I, rows)
        return self._dense(input_I, self._small(input_I))

    @property
    def zeros(self) -> tuple[int, int]:
        """How many inputs counted as zero, and of how many; the kernel on a GPU does not count."""
        return int(self._zeros), self._inputs

    def restore(self) -> None:
        """Lay the weight out as it was found."""
        self._lay_out(self._was_column_major)

    # --- ways ---

    def _dense(self, input_I: torch.Tensor, small_I: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(
            input_I.masked_fill(small_I, 0), self.module.weight, self.module.bias
        )

    def _on_gpu(self, input_I: torch.Tensor) -> torch.Tensor:
        if not self._choices.has_triton or self.module.weight.dtype == torch.float64:
            self._choices.missed_triton = not self._choices.has_triton
            return self._dense(input_I, self._small(input_I))
        from lightning_prune.kernels.gemv import sparse_gemv

        self._lay_out(by_columns=True)
        output_BO = sparse_gemv(
            input_I.reshape(-1, input_I.shape[-1]),
            self.module.weight,
            self.threshold,
            self.module.bias,
            self.sparsity,
        )
        return output_BO.unflatten(0, input_I.shape[:-1])

    def _on_cpu(self, input_I: torch.Tensor, rows: int) -> torch.Tensor:
        weight_OI = self.module.weight
        outputs, inputs = weight_OI.shape
        trial = self._choices.trials[outputs, inputs, weight_OI.dtype, rows]
        way = trial.way
        self._lay_out(by_columns=way == "columns")
        small_I = self._small(input_I)
        if trial.speed is not None:
            return self._by(way, input_I, small_I)
        with trial.timed(way):
            return self._by(way, input_I, small_I)

    def _by(self, way: str, input_I: torch.Tensor, small_I: torch.Tensor) -> torch.Tensor:
        if way == "dense":
            return self._dense(input_I, small_I)
        flat = -1, input_I.shape[-1]
        output_BO = sum_of_columns(
            input_I.reshape(flat), small_I.reshape(flat), self.module.weight, self.module.bias
        )
        return output_BO.unflatten(0, input_I.shape[:-1])

    # --- parts ---

    def _small(self, input_I: torch.Tensor) -> torch.Tensor:
        """Which inputs count as zero; counts them."""
        small_I = is_small(input_I, self.threshold)
        self._zeros = self._zeros.to(small_I.device) + small_I.sum()
        self._inputs += small_I.numel()
        return small_I

    def _trains(self, input_I: torch.Tensor) -> bool:
        tensors = (input_I, self.module.weight, self.module.bias)
        return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)

    def _lay_out(self, by_columns: bool) -> None:
        """The weight in the other layout, in new memory, if it is not in that one."""
        weight_OI = self.module.weight
        if is_column_major(weight_OI) != by_columns:
            new = column_major if by_columns else row_major
            # Of the kind that the weight is, whatever mode the call is made in.
            with torch.inference_mode(weight_OI.is_inference()):
                weight_OI.data = new(weight_OI.data)
