"""Weights laid out by columns, so that the weights of one input lie side by side.

Axes: I input features, O output features, P output features with padding.
"""

from __future__ import annotations

import torch

__all__ = ["column_major", "is_column_major", "row_major"]

ALIGNED = 16
"""On a GPU every column begins at a multiple of so many weights: it is read 16 bytes at a time."""


def is_column_major(weight_OI: torch.Tensor) -> bool:
    """Whether the weights of one input lie side by side, and each column begins where it should."""
    along_O, along_I = weight_OI.stride()
    outputs = weight_OI.shape[0]
    aligned = not weight_OI.is_cuda or along_I % ALIGNED == 0
    return along_O == 1 and along_I >= outputs and aligned


def column_major(weight_OI: torch.Tensor) -> torch.Tensor:
    """The same weight, in new memory, laid out by columns; itself if it is so already.

    On a GPU columns are padded with zeros to a multiple of 16, so that odd shapes are read as fast
    as even ones.
    """
    if is_column_major(weight_OI):
        return weight_OI
    outputs, inputs = weight_OI.shape
    padded = -(-outputs // ALIGNED) * ALIGNED if weight_OI.is_cuda else outputs
    columns_IP = weight_OI.new_zeros((inputs, padded))
    columns_IP[:, :outputs] = weight_OI.T
    return columns_IP[:, :outputs].T


def row_major(weight_OI: torch.Tensor) -> torch.Tensor:
    """The same weight as Linears have it; itself if it is so already."""
    return weight_OI.contiguous()
