"""A product of few rows on the CPU that reads the columns of inputs that are not zero only.

Axes: B rows, I input features, O output features, A active inputs, S parts of them.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["sum_of_columns"]


def sum_of_columns(
    input_BI: torch.Tensor,
    small_BI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor | None = None,
) -> torch.Tensor:
    """`nn.functional.linear` of few rows, of the inputs that are not small alone: (B, O).

    The columns are summed where they lie, as a bag of embeddings with weights. To copy them into a
    smaller matrix and multiply by that takes longer than the dense product.

    Args:
        input_BI: the rows, on the CPU.
        small_BI: which inputs count as zero.
        weight_OI: laid out by columns; see `layout.column_major`.
        bias_O: added at last.
    """
    weight_IO, parts = weight_OI.T, torch.get_num_threads()
    rows = []
    for input_I, small_I in zip(input_BI, small_BI, strict=True):
        active_A = (~small_I).nonzero().squeeze(1)
        begin_S = torch.arange(parts) * len(active_A) // parts
        sums_SO = nn.functional.embedding_bag(
            active_A, weight_IO, begin_S, mode="sum", per_sample_weights=input_I[active_A]
        )
        rows.append(sums_SO[0] if parts == 1 else sums_SO.sum(dim=0))
    output_BO = torch.stack(rows)
    return output_BO if bias_O is None else output_BO + bias_O
