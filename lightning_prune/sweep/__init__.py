"""Running a model block by block. The only room that registers hooks."""

from lightning_prune.sweep.collect import RESUMED, Collected, collect, go_back_again, visit
from lightning_prune.sweep.fitting import Fitted, fitting_sweep
from lightning_prune.sweep.goals import divergence_of
from lightning_prune.sweep.lending import home_device, on_device
from lightning_prune.sweep.placement import InMemory, Mapped, Placement, evaluating, placement_of
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.store import stored

__all__ = [
    "RESUMED",
    "Collected",
    "Fitted",
    "HiddenStates",
    "InMemory",
    "Mapped",
    "Placement",
    "collect",
    "divergence_of",
    "evaluating",
    "fitting_sweep",
    "go_back_again",
    "home_device",
    "on_device",
    "placement_of",
    "stored",
    "visit",
]
