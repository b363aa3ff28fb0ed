"""RIA: relative importance and activations, so that no input or output feature is lost whole.

Source: Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning
Method for Large Language Models", ICLR 2024, equations 3 and 4, and channel permutation for N:M.
Needs the norm of every input feature: one forward pass, and a second to propagate (order="block").
Differs from the authors' code: rows by default (theirs takes the whole matrix), exact counts, and
permutations that the model carries itself (permute="fold").

Axes: O output features, I input features, S sets of F features that change places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.callbacks.weight_pruning import WeightPruning, check_choices
from lightning_prune.evidence import InputNorm
from lightning_prune.method import Decision, check_finite
from lightning_prune.selection import Pattern, channel_permutation, keep_permuted
from lightning_prune.surgery import InnerFeatures, inner_features

__all__ = ["RIA", "Permute", "ria_score"]

Permute = Literal["none", "fold", "virtual"]


def ria_score(weight_OI: torch.Tensor, norm_I: torch.Tensor, power: float = 0.5) -> torch.Tensor:
    """(|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) · ||X_j||^power in fp32, shape (O, I).

    Args:
        weight_OI: the weight.
        norm_I: L2 norm of every input feature over the calibration tokens.
        power: of the norms.
    """
    size_OI = weight_OI.detach().abs().float()
    tiny = torch.finfo(torch.float32).tiny  # a feature of zeros has no importance, not NaN
    of_input_I = size_OI.sum(dim=0).clamp(min=tiny)
    of_output_O1 = size_OI.sum(dim=1, keepdim=True).clamp(min=tiny)
    return (size_OI / of_input_I + size_OI / of_output_O1) * norm_I**power


class RIA(WeightPruning):
    """Zero the weights of lowest relative importance times input norm.

    ```python
    RIA(sparsity=0.5)
    RIA(pattern="2:4", permute="fold")
    ```

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        power: of the input norms.
        permute: with a pattern, look for an order of the inputs in which it costs less.
            "fold" reorders what stays inside a block, and the weights that make it: MLP neurons,
            and the values of each key/value head where M divides the head size. The model computes
            the same, and its zeros are N:M as they are stored. The plan carries the moved weights.
            "virtual" takes every Linear's own best order, as the authors' code does, and changes
            none: the zeros are N:M in that order only, which is not kept, and no hardware uses
            them. To compare with.
        settings: the arguments of `WeightPruning`.

    Raises:
        ValueError: a negative power; permute without a pattern; permute="fold" with order="linear",
            which settles what makes the neurons before it looks at what reads them.
    """

    evidence = InputNorm
    own_scope = "row"

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        power: float = 0.5,
        permute: Permute = "none",
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, **settings)
        self.power, self.permute = power, permute
        check_choices(self, permute=get_args(Permute))
        if power < 0:
            raise ValueError(f"power={power} must not be negative; 0.5 is usual, 0 ignores inputs")
        if permute != "none" and pattern is None and self.plan is None:
            raise ValueError(
                f"permute={permute!r} puts inputs into another order for a pattern, and there is "
                "none; give pattern='2:4' or leave permute out"
            )
        if permute == "fold" and self.order == "linear":
            raise ValueError(
                "permute='fold' moves the rows that make an input, which order='linear' has "
                "settled by then; use order='block' or 'none'"
            )

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
            order_SF = torch.stack([channel_permutation(c, self._n_of_m) for c in columns])
            for name, axis, index in inner.moves(order_SF):
                value = moved.get(name, parameters[name])
                moved[name] = value.index_select(axis, index.to(value.device))
                if name in scores:
                    scores[name] = scores[name].index_select(axis, index.to(scores[name].device))
        decision = self.select(block, scores, share)
        decision.weights |= moved
        return decision, scores

    @property
    def _n_of_m(self) -> Pattern:
        assert self._pattern is not None, "permute goes with a pattern"
        return self._pattern

    def _folds(self, block: Block) -> list[InnerFeatures]:
        return [i for i in inner_features(block) if i.size % self._n_of_m.group == 0]

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """Relative importance times input norms."""
        return ria_score(site.module.weight, evidence.to(site.module.weight.device), self.power)

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Keep by pattern in the best order, or as always."""
        if self.permute != "virtual":
            return super().select(block, scores, share)
        check_finite(block, scores, "scores")
        return Decision(
            {
                name: keep_permuted(score, self._n_of_m, channel_permutation(score, self._n_of_m))
                for name, score in scores.items()
            }
        )
