"""Running a model block by block. The only room that registers hooks or moves blocks."""

from lightning_prune.sweep.backward import gradient_sweep
from lightning_prune.sweep.forward import Order, forward_sweep
from lightning_prune.sweep.influence import Part, influence_sweep
from lightning_prune.sweep.placement import evaluating, home_device, on_device
from lightning_prune.sweep.removal import removal_sweep
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.trials import trial_sweep

__all__ = [
    "HiddenStates",
    "Order",
    "Part",
    "evaluating",
    "forward_sweep",
    "gradient_sweep",
    "home_device",
    "influence_sweep",
    "on_device",
    "removal_sweep",
    "trial_sweep",
]
