"""Circuit: take out the parts of a model that an undesired behaviour is due to.

Source: Hatefi et al., "Attribution-guided Pruning for Compression, Circuit Discovery, and Targeted
Correction in LLMs" (SparC3), arXiv 2506.13727, equation 7: parts are ranked by R_general -
R_undesired, over two sets of reference samples, and the lowest go.
Needs attributions, which `lightning_prune.attribute` and `lightning-prune circuit` make; nothing is
calibrated here.
Differs: there is no code of the paper. A neuron of its MLPs is a row of one Linear; here it is the
whole unit. A masked unit has its columns of down_proj (o_proj, for groups) zeroed, which is all
that it takes to silence it, so that a strength between 0 and 1 scales what it says, no more.
"normalised" and "guarded" are ours. The budget is a number of parts of the whole model, wherever
they are: there is nothing for an allocation to share.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.methods.circuits import CircuitPruning
from lightning_prune.models.module import PrunableModule

__all__ = ["Circuit"]


class Circuit(PruningCallback, CircuitPruning):
    """Remove the parts that are most undesired and least general.

    ```python
    general, undesired = attribute(model, windows), attribute(model, prompts)
    plan = prune(model, Circuit(general=general, undesired=undesired, count=100))
    plan.set_strength(model, 0.5)  # half of it
    plan.restore(model)
    prune(model, Circuit(units="circuit.json", cut=True))
    ```

    Raises:
        ValueError: both or neither of attributions and units are given, an argument is out of
            range, or the model has no such parts.
    """

    def _identity(self, trainer: Trainer, pl_module: PrunableModule) -> dict[str, Any]:
        """What is in the files decides, not what they are called."""
        identity = super()._identity(trainer, pl_module)
        if self.plan is None:
            circuit = self.circuit(self.blocks(Anatomy(pl_module.base)))
            identity["circuit"] = repr(circuit)
        for name in ("general", "undesired", "units"):
            identity["arguments"].pop(name)
        return identity
