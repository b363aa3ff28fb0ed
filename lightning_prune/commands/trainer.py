"""The Trainer of the command line: it can also prune without training, and study a model."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from lightning_prune.commands.arguments import Kept
from lightning_prune.commands.circuit import circuit
from lightning_prune.commands.importance import importance
from lightning_prune.commands.plan_resources import plan_resources
from lightning_prune.commands.prune import prune
from lightning_prune.commands.search import search
from lightning_prune.commands.sweep import sweep

__all__ = ["STUDIES", "PruneTrainer"]

STUDIES = ("sweep", "importance", "search", "circuit")
"""Commands that train nothing: no logger, no checkpoints, one device."""


class PruneTrainer(Trainer):
    """A Trainer whose methods are our commands, too.

    Attributes:
        kept: where a study adds its results; None: nowhere.
        asked: of the accelerator, devices and nodes of another machine, what a configuration says.
    """

    kept: Kept | None = None
    asked: dict[str, Any] = {}

    prune = prune
    sweep = sweep
    importance = importance
    search = search
    circuit = circuit
    plan_resources = plan_resources
