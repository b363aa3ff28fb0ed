"""CFSP: blocks that change the stream most keep most; within one, neurons that are heard.

Source: Wang et al., "CFSP: An Efficient Structured Pruning Framework for LLMs with Coarse-to-Fine
Activation Information", arXiv 2409.13199, equation 8, and the local metrics of its code. With n(A)
the relative magnitude of A (below), X_j the input of down_proj, and the weights of neuron j as
D-vectors, the score of j is the mean over D of

    three_w_one_wa   (n(W_down ||X_j||^b) + n(W_up) + n(W_gate)) ||X_j||^c
    three_w_one_a    (n(W_down) + n(W_up) + n(W_gate)) ||X_j||^c
    one_wa           n(W_down ||X_j||^b) ||X_j||^c
    one_a            n(W_down) ||X_j||^½
    wanda_base       |W_down| ||X_j||
    mag_base         W_down, its L2 norm in place of the mean

Needs the norm of every input feature: one forward pass; its allocation another.

Differs from the authors' code, which takes n(A) = |A| / Σ over D of |A|. Its mean over D is 1/D for
every neuron, so that weights and b cancel, and three_w_one_wa, three_w_one_a and one_wa are all the
order of ||X_j|| (`formula="code"`). Here n(A) = |A| / Σ over the block's neurons of |A|, as
equation 8 has it for W_down. The code's mag_base averages the norms into one number for the whole
block; here every neuron has its own.

Axes: D hidden size, I input features, U units (neurons) of one block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch

from lightning_prune.allocation import Allocation, CFSPSigmoid
from lightning_prune.anatomy import Block
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.evidence import InputNorm

__all__ = ["CFSP", "Formula", "LocalMetric", "neuron_score", "relative"]

LocalMetric = Literal[
    "three_w_one_wa", "three_w_one_a", "one_wa", "one_a", "wanda_base", "mag_base"
]
Formula = Literal["paper", "code"]


def relative(weight_UD: torch.Tensor, formula: Formula) -> torch.Tensor:
    """n(A): magnitudes as shares of their sum, (U, D).

    Args:
        weight_UD: the weights of every neuron in one site.
        formula: "paper": of the sum over neurons; "code": of the sum over the hidden size.
    """
    size_UD = weight_UD.abs()
    total = size_UD.sum(dim=0 if formula == "paper" else 1, keepdim=True)
    return size_UD / total.clamp(min=torch.finfo(size_UD.dtype).tiny)


def neuron_score(
    metric: LocalMetric,
    formula: Formula,
    down_UD: torch.Tensor,
    rows_UD: Sequence[torch.Tensor],
    norm_U: torch.Tensor,
    b: float = 1.0,
    c: float = 1.0,
) -> torch.Tensor:
    """One of CFSP's local metrics of every neuron, (U,).

    Args:
        metric: which one.
        formula: what relative magnitudes are relative to.
        down_UD: the columns of down_proj.
        rows_UD: the rows of up_proj and gate_proj, or of the one Linear that stands for both.
        norm_U: ||X_j||_2 of every input feature of down_proj.
        b: power of the norm next to W_down.
        c: power of the norm around all.
    """
    if metric == "mag_base":
        return torch.linalg.vector_norm(down_UD, dim=1)
    if metric == "wanda_base":
        return down_UD.abs().mean(dim=1) * norm_U
    heard_UD = down_UD * norm_U[:, None] ** b if metric.endswith("wa") else down_UD
    total_U = relative(heard_UD, formula).mean(dim=1)
    if metric == "one_a":
        return total_U * norm_U.sqrt()
    if metric.startswith("three"):
        total_U = total_U + sum(relative(row_UD, formula).mean(dim=1) for row_UD in rows_UD)
    return total_U * norm_U**c


class CFSP(UnitPruning):
    """Remove the MLP neurons of lowest relative weight and activation.

    ```python
    CFSP(ratio=0.2)
    CFSP(ratio=0.2, multiple=128)                    # the code's "cuda_friendly"
    CFSP(ratio=0.2, metric="wanda_base", allocation=Uniform())
    ```

    Args:
        ratio: as in `UnitPruning`; of the neurons, as attention stays whole.
        metric: "three_w_one_wa", "three_w_one_a", "one_wa", "one_a", "wanda_base" or "mag_base".
        b: power of the activations next to down_proj's weights.
        c: power of the activations around the sum.
        formula: "paper", or "code" for what the authors' code computes: the order of the activation
            norms alone.
        attention: False: the score is of MLP neurons only.
        settings: the arguments of `UnitPruning`.

    Raises:
        ValueError: an unknown metric or formula, a negative power, or attention=True.
    """

    evidence = InputNorm

    def __init__(
        self,
        ratio: float | None = None,
        metric: LocalMetric = "three_w_one_wa",
        b: float = 1.0,
        c: float = 1.0,
        formula: Formula = "paper",
        attention: bool = False,
        **settings: Any,
    ) -> None:
        if attention:
            raise ValueError(
                "attention=True: CFSP scores MLP neurons only. Leave it out, and prune GQA groups "
                "with another method such as FLAP or WandaSP, before or after."
            )
        super().__init__(ratio, attention=attention, **settings)
        if metric not in get_args(LocalMetric) or formula not in get_args(Formula):
            raise ValueError(
                f"metric={metric!r}, formula={formula!r}: CFSP has the metrics "
                f"{', '.join(get_args(LocalMetric))}, and formula is 'paper' or 'code'"
            )
        if not (0 <= b < math.inf and 0 <= c < math.inf):
            raise ValueError(f"b={b}, c={c} are powers of activation norms; they must be >= 0")
        self.metric, self.b, self.c, self.formula = metric, b, c, formula

    @property
    def own_allocation(self) -> Allocation:
        """The paper's, by the angle that each block turns the residual stream."""
        return CFSPSigmoid()

    def score(self, block: Block, evidence: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The local metric of every neuron."""
        units = block.units("neuron")
        if not units:  # its MLP was taken out
            return {}
        down = block.reader("neuron")
        parts = {
            member: member.gather(member.site.module.weight.detach().float(), units)[:, 0]
            for member in block.members("neuron")
        }
        norm_U = evidence[down.site.table.reads].to(parts[down].device)
        rows_UD = [part_UD for member, part_UD in parts.items() if member.axis == 0]
        score_U = neuron_score(
            self.metric, self.formula, parts[down], rows_UD, norm_U, self.b, self.c
        )
        return {"neuron": score_U}
