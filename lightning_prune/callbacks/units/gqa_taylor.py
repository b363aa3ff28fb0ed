"""GQA-aware Taylor pruning: a group is removed whole, with the query heads that use it.

Source: Ma, Fang, Wang, "LLM-Pruner", arXiv 2305.11627, equation 5, first order, element-wise: the
score of a weight is |w · ∂L/∂w|, of a unit the sum over all its weights.
Needs one forward and backward pass over the calibration set on the dense model.
"""

from __future__ import annotations

from lightning_prune.callbacks.units.taylor import Taylor

__all__ = ["GQATaylor"]


class GQATaylor(Taylor):
    """Remove the GQA groups and MLP neurons of lowest Σ |w · ∂L/∂w|: `Taylor` by its defaults.

    A group is removed whole: its key/value head with all query heads that share it, so the number
    of query heads per key/value head stays as it is.

    ```python
    GQATaylor(ratio=0.25)
    GQATaylor(ratio=0.25, attention=False, layer_start=4, layer_end=30)
    ```
    """
