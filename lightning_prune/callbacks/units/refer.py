"""ReFer: what the size of the features feels of a weight, |w · ∂P/∂w|.

Source: Kobayashi et al., arXiv 2607.08027, and its code, where the score also goes by FO. P is the
sum over Linears of a norm of their outputs for one sequence: "frobenius", the Frobenius norm of the
output (tokens, features); "nuclear", its mean singular value; "l1", the sum of its magnitudes; and
the mean of that over sequences. No labels are needed.
Needs one forward and backward pass over the calibration set on the dense model. "nuclear" also
needs all eigenvectors of one Gram matrix per output and sequence, which is several times the cost
of the passes, so it is not the default.

Differs from the authors' code. Its "SVD" flattens each output to one row, whose only singular value
is the Frobenius norm; the nuclear norm here is that of the output itself, and its gradient is taken
in the stable form U Vᵀ. It adds up the norms of all modules, containers, norms and the head too, so
that the residual stream counts many times (`modules="all"`). It looks at one sequence only; here
the gradient is that of the whole calibration set. Its scores are ratios of mean and deviation
(`aggregate="snr"`); here they are magnitudes of means, as in AFR.

Axes: U units of one block.
"""

from __future__ import annotations

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Feature, Gradients
from lightning_prune.evidence.objective import FeatureKind, Modules
from lightning_prune.methods.products import ProductPruning

__all__ = ["ReFer"]


class ReFer(PruningCallback, ProductPruning):
    """Remove the GQA groups and MLP neurons that the size of the features would miss least.

    ```python
    ReFer(ratio=0.2)
    ReFer(ratio=0.2, attention=False, modules="all", aggregate="snr")    # the authors' ReFer-SVD
    ReFer(ratio=0.2, attention=False, kind="l1", modules="all", aggregate="mean", trim=0.0)
    ```

    Args:
        kind: of the features, "frobenius", "nuclear" or "l1".
        modules: whose outputs: "linear": those of the Linears inside blocks; "all": of every module
            of the model, as in the authors' code, which holds the logits of all tokens.
        aggregate: of the signed products in a unit, "mean_abs": the magnitude of the mean; "snr":
            that over the standard deviation; "mean": the mean itself, as in the authors' code of
            the L1 variant.
        trim: fraction of the products that is left out at either end.
        signed: False: of the magnitudes of the products.

    Raises:
        ValueError: an argument is unknown or out of range.
    """

    kind: FeatureKind = "frobenius"
    modules: Modules = "linear"
    trim: float = 0.02

    @property
    def evidence(self) -> Gradients:
        """Gradients of the size of the features."""
        return Gradients(objective=Feature(kind=self.kind, modules=self.modules))
