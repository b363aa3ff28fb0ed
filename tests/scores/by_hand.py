"""Random numbers, and the features of units counted by hand."""

from __future__ import annotations

import torch


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_and_columns(model_type: str, kind: str, unit: int) -> dict[str, tuple[int, set[int]]]:
    """Of each site, the axis and the features that make up a unit, counted by hand.

    8 heads in 4 groups (OPT: 8 groups), heads of 6 features (OPT: 4), 22 neurons.
    """
    size = 4 if model_type == "opt" else 6
    heads = 1 if model_type == "opt" else 2
    query = set(range(unit * heads * size, (unit + 1) * heads * size))
    key = set(range(unit * size, (unit + 1) * size))
    if model_type == "phi3":
        key_rows = {48 + f for f in key}
        value_rows = {48 + 24 + f for f in key}
        groups = {
            "self_attn.qkv_proj": (0, query | key_rows | value_rows),
            "self_attn.o_proj": (1, query),
        }
        neurons = {"mlp.gate_up_proj": (0, {unit, 22 + unit}), "mlp.down_proj": (1, {unit})}
    else:
        out = "self_attn.out_proj" if model_type == "opt" else "self_attn.o_proj"
        groups = {
            "self_attn.q_proj": (0, query),
            "self_attn.k_proj": (0, key),
            "self_attn.v_proj": (0, key),
            out: (1, query),
        }
        neurons = {
            "mlp.gate_proj": (0, {unit}),
            "mlp.up_proj": (0, {unit}),
            "mlp.down_proj": (1, {unit}),
        }
        if model_type == "opt":
            neurons = {"fc1": (0, {unit}), "fc2": (1, {unit})}
    return groups if kind == "group" else neurons
