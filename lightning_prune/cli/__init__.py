"""The command line: LightningCLI, commands of our own, and errors that fit on one line."""

from lightning_prune.cli.command_line import PruneCLI
from lightning_prune.cli.run import main
from lightning_prune.cli.trainer import PruneTrainer

__all__ = ["PruneCLI", "PruneTrainer", "main"]
