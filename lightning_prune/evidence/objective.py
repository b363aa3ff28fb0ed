"""Of what gradients are taken: a scalar of the calibration set, the mean over its parts.

Axes: B sequences, T tokens, K features of an output, S the smaller of T and K.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from torch.nn import functional as F

from lightning_prune.anatomy.tasks import Labels, Task
from lightning_prune.checks import Configured
from lightning_prune.tokens import IGNORED

__all__ = [
    "Feature",
    "FeatureKind",
    "HeadObjective",
    "Logit",
    "Modules",
    "Objective",
    "OfLogits",
    "Places",
    "TaskLoss",
    "polar",
]

FeatureKind = Literal["nuclear", "frobenius", "l1"]
Modules = Literal["linear", "all"]
Places = Literal["last", "all"]


class Objective(Configured, ABC):
    """A scalar of the calibration set that a backward sweep differentiates.

    Attributes:
        begins: where its gradients begin: behind the "head", or at the outputs of many "modules".
    """

    begins: ClassVar[Literal["head", "modules"]]


class HeadObjective(Objective):
    """A sum of what the logits of some places come to; its gradient begins behind the last block.

    A subclass says at which places, and what their logits come to.
    """

    begins = "head"

    @abstractmethod
    def targets(self, task: Task, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What is asked of the logits of each place, as `Task.targets` gives it."""

    @abstractmethod
    def values(self, logits_NK: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        """What the logits of N places come to, (N,), fp32; 0 where the target is `IGNORED`."""


class TaskLoss(HeadObjective):
    """The mean loss that models of this kind are trained by: cross entropy.

    Args:
        labels: "all": every token is predicted from those before it, every image has its class.
            "reference": what the authors' codes of SNIP and AFR compute of language models, one
            term a sequence and not shifted: the logits at the last token against that same token,
            which the model has read already. To compare with only.
    """

    labels: Labels = "all"

    def targets(self, task: Task, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Next tokens, or classes."""
        return task.targets(batch, self.labels)

    def values(self, logits_NK: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        """Cross entropy."""
        return F.cross_entropy(logits_NK.float(), target_N, reduction="none", ignore_index=IGNORED)


class Logit(HeadObjective):
    """One logit of each place: what the model answers, or a given class.

    Args:
        places: of language models, "last": the last token of each sequence; "all": every token that
            a next one is asked of. Of images there is one place.
        token: whose logit, by its number; None: the largest.
        against: less the logit of this one, by its number; None: of none.
    """

    places: Places = "last"
    token: int | None = None
    against: int | None = None

    def check(self, classes: int) -> None:
        """Refuse numbers of tokens that a head with so many classes does not tell apart.

        Raises:
            ValueError: there is no such token, or it is set against itself.
        """
        for name in ("token", "against"):
            value = getattr(self, name)
            known = value is None or 0 <= value < classes
            self.require(name, known, f"it is a number from 0 to {classes - 1}, or None")
        apart = self.against is None or self.against != self.token
        self.require("against", apart, "it is another token")

    def targets(self, task: Task, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Places that are asked of have any number but `IGNORED`."""
        return task.answered(batch, last=self.places == "last")

    def values(self, logits_NK: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        """The logit, or the difference of two."""
        if self.token is None:
            index_N1 = logits_NK.detach().argmax(dim=-1, keepdim=True)
            value_N = logits_NK.gather(-1, index_N1)[:, 0].float()
        else:
            value_N = logits_NK[:, self.token].float()
        if self.against is not None:
            value_N = value_N - logits_NK[:, self.against].float()
        return value_N.masked_fill(target_N == IGNORED, 0)


class OfLogits(HeadObjective):
    """What a function makes of the logits of each place.

    ```python
    OfLogits(function=lambda logits_NV: logits_NV[:, [17, 42]].logsumexp(dim=-1))
    ```

    Args:
        function: from the logits of N places, (N, V), to N numbers, (N,), by torch's functions.
        places: as of `Logit`.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    places: Places = "last"

    def targets(self, task: Task, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Places that are asked of have any number but `IGNORED`."""
        return task.targets(batch, "reference" if self.places == "last" else "all")

    def values(self, logits_NK: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        """The function's."""
        value_N = self.function(logits_NK).float()
        if value_N.shape != target_N.shape:
            raise ValueError(
                f"OfLogits: function makes {tuple(value_N.shape)} of logits "
                f"{tuple(logits_NK.shape)}; it is to give a number for each place, "
                f"{tuple(target_N.shape)}"
            )
        return value_N.masked_fill(target_N == IGNORED, 0)


class Feature(Objective):
    """How large the features are: the sum of a norm over modules, the mean of that over sequences.

    The gradient flows through the whole model: what a weight does to all later features counts.
    Padding does not count.

    Args:
        kind: of the output (T, K) of a module for one sequence, in fp32, "frobenius": its Frobenius
            norm, which is what the authors' codes of ReFer-SVD compute (they flatten the output to
            one row, which has one singular value); "nuclear": the mean of its singular values;
            "l1": the sum of its absolute values.
        modules: whose outputs: "linear": of every Linear inside the blocks; "all": of every module
            of the model, containers, norms and the head included, as in the authors' codes. That
            counts the residual stream many times, and looks at the logits of all tokens at once.
            To compare with only.
    """

    begins = "modules"

    kind: FeatureKind = "frobenius"
    modules: Modules = "linear"

    @property
    def scale(self) -> float:
        """By what `gradient` is larger than the gradient, so that float16 can hold it."""
        return 1.0 if self.kind == "l1" else 1024.0

    @torch.no_grad()
    def gradient(self, output_BTK: torch.Tensor, keep_BT: torch.Tensor | None) -> torch.Tensor:
        """`scale` times the gradient of the summed norms of all sequences, in the output's type.

        Args:
            output_BTK: of one module.
            keep_BT: True where a token counts; None if all do.
        """
        feature_BTK = output_BTK.float()
        if keep_BT is not None:
            feature_BTK = feature_BTK * keep_BT[..., None]
        if self.kind == "l1":
            gradient_BTK = feature_BTK.sign()
        elif self.kind == "frobenius":
            norm_B11 = torch.linalg.vector_norm(feature_BTK, dim=(1, 2), keepdim=True)
            gradient_BTK = feature_BTK / norm_B11.clamp(min=torch.finfo(torch.float32).tiny)
        else:
            _, tokens, width = feature_BTK.shape
            values_B11 = torch.full((1, 1, 1), min(tokens, width), device=output_BTK.device)
            if keep_BT is not None:
                values_B11 = keep_BT.sum(dim=1)[:, None, None].clamp(min=1, max=width)
            gradient_BTK = torch.stack([polar(one_TK) for one_TK in feature_BTK]) / values_B11
        return (self.scale * gradient_BTK).to(output_BTK.dtype)


def polar(matrix_TK: torch.Tensor) -> torch.Tensor:
    """U Vᵀ of U diag(σ) Vᵀ: the gradient of the sum of singular values (fp32).

    Unlike the derivative of the singular values themselves it is stable where they repeat. It comes
    from the smaller Gram matrix in float64; singular values that are rounding errors of float32
    count as zeros, where 0 is a subgradient.
    """
    matrix = matrix_TK.double()
    wide = matrix.shape[0] <= matrix.shape[1]
    gram_SS = matrix @ matrix.mT if wide else matrix.mT @ matrix
    if not torch.isfinite(gram_SS).all():  # eigh would raise; NaN is refused by name later
        return torch.full_like(matrix_TK, torch.nan, dtype=torch.float32)
    square_S, vector_SS = torch.linalg.eigh(gram_SS)
    limit = (max(matrix.shape) * torch.finfo(torch.float32).eps) ** 2 * square_S[-1]
    inverse_S = torch.where(square_S > limit, square_S.clamp(min=0).rsqrt(), 0)
    root_SS = (vector_SS * inverse_S) @ vector_SS.mT
    return (root_SS @ matrix if wide else matrix @ root_SS).float()
