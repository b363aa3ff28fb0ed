"""Ablations of Wanda: its mask, or magnitude's, with the weight updates of SparseGPT.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language
Models", arXiv 2306.11695, section 5 (weight updates), and its code: the mask is taken once from the
original weights, or for every 128 columns from the weights as updated so far.
Needs the Gram matrix of every input: one forward pass, and a second with propagate="block".
Differs from the authors' code: exact counts (ties="reference" is theirs), and the norms are those
of the inputs. Their code scales the inputs of sequence k by sqrt(2 / k) before it takes the norms,
so that early sequences count more (harmonic=True does the same).

Axes: B sequences, T tokens, O output features, I input features, C consecutive columns.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Gram, InputEvidence
from lightning_prune.methods.base import Solving
from lightning_prune.methods.reconstruction import Problem, Reconstruction, Solution
from lightning_prune.repair import factored, obs_prune
from lightning_prune.scores.magnitude import magnitude_score
from lightning_prune.scores.wanda import wanda_score
from lightning_prune.selection import COLUMNS, Scope

__all__ = ["Ablation", "HarmonicGram"]


class HarmonicResult(NamedTuple):
    """A Gram matrix and input norms that need not be its own, fp32."""

    gram_II: torch.Tensor
    norm_I: torch.Tensor


class HarmonicGram(Gram):
    """The Gram matrix, and with it norms in which sequence k counts 1 / k, as in the ablations.

    Sequences are counted in the order in which one process sees them.
    """

    def start(self) -> None:
        """Sums over no sequence."""
        super().start()
        self._harmonic_I = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        self._sequences = 0

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch."""
        super().update(input_BTI, keep_BT)
        for b, input_TI in enumerate(input_BTI):
            kept_NI = input_TI if keep_BT is None else input_TI[keep_BT[b]]
            self._sequences += 1
            squares_I = kept_NI.double().square().sum(dim=0) / self._sequences
            self._harmonic_I += squares_I.to(self._harmonic_I.device)

    @property
    def sums(self) -> list[torch.Tensor]:
        """Those of the Gram matrix, and the weighted squares."""
        return [*super().sums, self._harmonic_I]

    def result(self) -> HarmonicResult:  # type: ignore[override]
        """The matrix and the norms."""
        return HarmonicResult(super().result(), self._harmonic_I.sqrt().float())


class Ablation(PruningCallback, Reconstruction):
    """A mask by magnitude or by Wanda, and SparseGPT's updates of the weights that stay.

    ```python
    Ablation(sparsity=0.5, mask="wanda", mask_from="original")
    ```

    Args:
        mask: what weights are chosen by.
        mask_from: choose once, from the "original" weights (scope: Wanda's rows, magnitude's
            matrix), or for every 128 columns (for N:M, each group) from the "updated" ones.
        harmonic: norms in which early sequences count more, as in the authors' code; in the order
            in which one process sees them, so that several processes give another result.
        damping: share of the Gram matrix's mean diagonal that is added to its diagonal.
    """

    solving = Solving(32, 6, products=1, inversions=0.5)

    mask: Literal["magnitude", "wanda"] = "wanda"
    mask_from: Literal["original", "updated"] = "original"
    harmonic: bool = False
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("damping", self.damping > 0, "it is above 0; 0.01 is usual")
        if self.mask_from == "updated":
            self.check_scope()

    @property
    def evidence(self) -> InputEvidence:
        """The Gram matrix of every input, perhaps with other norms."""
        return HarmonicGram() if self.harmonic else Gram()

    @property
    def own_scope(self) -> Scope:  # type: ignore[override]
        """That of the mask's own method, or some columns."""
        if self.mask_from == "updated":
            return "columns"
        return "row" if self.mask == "wanda" else "matrix"

    def solve(self, problem: Problem) -> Solution:
        """Choose by the mask's own score, and eliminate from left to right."""
        if self.harmonic:
            gram_II, norm_I = problem.evidence
        else:
            gram_II, norm_I = problem.evidence, problem.evidence.diagonal().sqrt()
        factor = factored(gram_II, self.damping)
        score_OI = self._score(problem.weight_OI, norm_I)
        choose = problem.by_site(self._keep, apart=self.n_of_m is None)
        fixed_OI = choose(score_OI) if self.mask_from == "original" else None

        def select(
            weight_OC: torch.Tensor, diagonal_C: torch.Tensor, columns: slice
        ) -> torch.Tensor:
            if fixed_OI is not None:
                return fixed_OI[:, columns]
            share = self.columns_share(columns, problem.share)
            return choose(self._score(weight_OC, norm_I[columns]), columns, share)

        step = self.n_of_m.group if self.n_of_m else COLUMNS
        weight_OI, keep_OI = obs_prune(problem.weight_OI, factor, select, step)
        return Solution(weight_OI, keep_OI, score_OI)

    def _score(self, weight_OC: torch.Tensor, norm_C: torch.Tensor) -> torch.Tensor:
        if self.mask == "magnitude":
            return magnitude_score(weight_OC)
        return wanda_score(weight_OC, norm_C)
