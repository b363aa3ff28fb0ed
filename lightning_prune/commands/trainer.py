"""The Trainer of the command line: it can also prune without training, and study a model."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_prune.commands.importance import importance
from lightning_prune.commands.prune import prune
from lightning_prune.commands.search import search
from lightning_prune.commands.sweep import sweep

__all__ = ["STUDIES", "PruneTrainer"]

STUDIES = ("sweep", "importance", "search")
"""Commands that train nothing: no logger, no checkpoints, one device."""


class PruneTrainer(Trainer):
    """A Trainer whose methods are our commands, too."""

    prune = prune
    sweep = sweep
    importance = importance
    search = search
