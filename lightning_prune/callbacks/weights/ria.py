"""RIA: relative importance and activations, so that no input or output feature is lost whole.

Source: Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning
Method for Large Language Models", ICLR 2024, equations 3 and 4, and channel permutation for N:M.
Needs the norm of every input feature: one forward pass, and a second with propagate="block".
Differs from the authors' code: rows by default (theirs takes the whole matrix), exact counts, and
permutations that the model carries itself (permute="fold").

Axes: S sets of F features that change places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import InputEvidence, InputNorm, TokenWeight
from lightning_prune.methods.base import Decision, check_finite
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.scores.ria import ria_score
from lightning_prune.selection import Pattern, channel_permutation, keep_permuted
from lightning_prune.surgery import InnerFeatures, inner_features

__all__ = ["RIA"]


class RIA(PruningCallback, WeightPruning):
    """Zero the weights of lowest relative importance times input norm.

    ```python
    RIA(sparsity=0.5)
    RIA(pattern="2:4", permute="fold")
    ```

    Args:
        power: of the input norms.
        permute: with a pattern, look for an order of the inputs in which it costs less.
            "fold" reorders what stays inside a block, and the weights that make it: MLP neurons,
            and the values of each key/value head where M divides the head size. The model computes
            the same, and its zeros are N:M as they are stored. The plan carries the moved weights.
            "virtual" takes every Linear's own best order, as the authors' code does, and changes
            none: the zeros are N:M in that order only, which is not kept, and no hardware uses
            them. To compare with.
        token_weight: what a token counts by in sums over tokens: the square of its length, as in
            the paper; that of its length up to three times the median; or all "equal".

    Raises:
        ValueError: a negative power; permute without a pattern; permute="fold" with
            propagate="layer", which settles what makes the neurons before it looks at what reads
            them.
    """

    power: float = 0.5
    permute: Literal["none", "fold", "virtual"] = "none"
    token_weight: TokenWeight = "square"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("power", self.power >= 0, "it is 0 or more; 0.5 is usual, 0 ignores inputs")
        if self.permute != "none" and self.pattern is None and self.plan is None:
            raise ValueError(
                f"permute={self.permute!r} puts inputs into another order for a pattern, and there "
                "is none; give pattern='2:4' or leave permute out"
            )
        if self.permute == "fold" and self.propagate == "layer":
            raise ValueError(
                "permute='fold' moves the rows that make an input, which propagate='layer' has "
                "settled by then; use propagate='block' or 'none'"
            )

    @property
    def evidence(self) -> InputEvidence:
        """The norm of every input feature."""
        return InputNorm(token_weight=self.token_weight)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse also to fold where nothing can be."""
        super().check(anatomy)
        if self.permute == "fold" and not any(map(self._folds, self.blocks(anatomy))):
            raise ValueError(
                "permute='fold' finds no input whose order is free: it takes down_proj together "
                "with gate_proj and up_proj, or o_proj with v_proj; exclude none of either"
            )

    def prune_block(
        self, block: Block, evidence: Mapping[str, Any], share: float
    ) -> tuple[Decision, dict[str, torch.Tensor]]:
        """With permute="fold", reorder inner features, then select as always."""
        if self.permute != "fold":
            return super().prune_block(block, evidence, share)
        scores, moved = self.score(block, evidence), dict[str, torch.Tensor]()
        check_finite(block, scores, "scores")
        parameters = {
            f"{site.name}.{name}": parameter.detach()
            for site in block.sites
            for name, parameter in site.module.named_parameters(recurse=False)
        }
        for inner in self._folds(block):
            columns = inner.columns(scores[inner.reader.weight_name])
            order_SF = torch.stack([channel_permutation(c, self._pattern) for c in columns])
            for name, axis, index in inner.moves(order_SF):
                value = moved.get(name, parameters[name])
                moved[name] = value.index_select(axis, index.to(value.device))
                if name in scores:
                    scores[name] = scores[name].index_select(axis, index.to(scores[name].device))
        decision = self.select(block, scores, share)
        decision.weights |= moved
        return decision, scores

    @property
    def _pattern(self) -> Pattern:
        assert self.n_of_m is not None, "permute goes with a pattern"
        return self.n_of_m

    def _folds(self, block: Block) -> list[InnerFeatures]:
        return [i for i in inner_features(block) if i.size % self._pattern.group == 0]

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """Relative importance times input norms."""
        return ria_score(site.module.weight, evidence, self.power)

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Keep by pattern in the best order, or as always."""
        if self.permute != "virtual":
            return super().select(block, scores, share)
        check_finite(block, scores, "scores")
        return Decision(
            {
                name: keep_permuted(score, self._pattern, channel_permutation(score, self._pattern))
                for name, score in scores.items()
            }
        )
