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

Axes: D hidden size, U units (neurons) of one block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from lightning_prune.allocation import Allocation, CFSPSigmoid
from lightning_prune.anatomy import Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import InputNorm
from lightning_prune.methods.units import UnitPruning
from lightning_prune.scores.cfsp import Formula, LocalMetric, neuron_score

__all__ = ["CFSP"]


class CFSP(PruningCallback, UnitPruning):
    """Remove the MLP neurons of lowest relative weight and activation.

    ```python
    CFSP(ratio=0.2)
    CFSP(ratio=0.2, round_to=128)                    # the code's "cuda_friendly"
    CFSP(ratio=0.2, metric="wanda_base", allocation=Uniform())
    ```

    Args:
        metric: "three_w_one_wa", "three_w_one_a", "one_wa", "one_a", "wanda_base" or "mag_base".
        b: power of the activations next to down_proj's weights.
        c: power of the activations around the sum.
        formula: "paper", or "code" for what the authors' code computes: the order of the activation
            norms alone.

    Raises:
        ValueError: an unknown metric or formula, a negative power, or attention=True.
    """

    evidence = InputNorm()

    metric: LocalMetric = "three_w_one_wa"
    b: float = 1.0
    c: float = 1.0
    formula: Formula = "paper"
    attention: bool = False
    allocation: Allocation = CFSPSigmoid()

    def __post_init__(self) -> None:
        if self.attention:
            raise ValueError(
                "attention=True: CFSP scores MLP neurons only. Leave it out, and prune GQA groups "
                "with another method such as FLAP or WandaSP, before or after."
            )
        super().__post_init__()
        for name in ("b", "c"):
            power = getattr(self, name)
            self.require(name, 0 <= power < math.inf, "a power of activation norms is 0 or more")

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
        norm_U = evidence[down.site.table.reads]
        rows_UD = [part_UD for member, part_UD in parts.items() if member.axis == 0]
        score_U = neuron_score(
            self.metric, self.formula, parts[down], rows_UD, norm_U, self.b, self.c
        )
        return {"neuron": score_U}
