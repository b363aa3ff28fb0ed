"""Runs as the store keeps them, made by hand."""

from __future__ import annotations

from typing import Any

from lightning_prune.analysis.store.rows import Evaluation, Held, Matrix, Row, Run, Score

KINDS = {
    "self_attn.q_proj": (8, 8),
    "self_attn.o_proj": (8, 8),
    "mlp.up_proj": (16, 8),
    "mlp.down_proj": (8, 16),
}


def matrices(stage: str, share: float, blocks: int = 2, width: int | None = None) -> list[Row]:
    """Matrices of which a share of the weights is zero."""
    rows: list[Row] = []
    for block in range(blocks):
        for kind, (outputs, inputs) in KINDS.items():
            inputs = width if width is not None and kind == "mlp.down_proj" else inputs
            name = f"model.layers.{block}.{kind}.weight"
            zeros = round(outputs * inputs * share)
            norm = 10.0 * (1 - share / 2)
            rows.append(
                Matrix(stage, name, block, kind, outputs, inputs, zeros, share, share, norm)
            )
            rows.append(Held(stage, name, "2:4", 1.0 if share == 0.5 else 0.0))
    return rows


def pruned(
    method: str = "Wanda", perplexity: float = 20.0, share: float = 0.5, **asked: Any
) -> Run:
    """A run of `prune`: dense and pruned, judged on one text."""
    on = {"task": "wikitext2", "split": "validation", "length": 256, "samples": 8}
    asked = asked or {"sparsity": share}
    rows = [
        *matrices("dense", 0.0),
        *matrices("pruned", share),
        Evaluation("dense", "perplexity", 10.0, **on),
        Evaluation("pruned", "perplexity", perplexity, **on),
        Score("weight", "model.layers.0.mlp.up_proj.weight", 128, *[float(i) for i in range(11)]),
    ]
    return Run("prune", "tiny", method=method, call=f"{method}()", device="cpu", rows=rows, **asked)
