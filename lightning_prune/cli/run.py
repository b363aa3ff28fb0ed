"""From the arguments to the command, and from an error to one line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from transformers.utils.logging import disable_progress_bar

from lightning_prune.cli import analyze, compare, evaluate, export, generate, measure, sparsity
from lightning_prune.cli.command_line import run_lightning
from lightning_prune.cli.errors import fail, is_ours, root_cause, said_by_first_process
from lightning_prune.cli.recipes import with_recipes

__all__ = ["main"]

DEBUG = "LIGHTNING_PRUNE_DEBUG"
WITHOUT_CONFIGURATION = {
    command.NAME: command.run
    for command in (analyze, compare, evaluate, export, generate, measure, sparsity)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    An error of this package, of Lightning's settings, or of the disk, is one line and exit status
    2; set LIGHTNING_PRUNE_DEBUG=1 for its traceback.
    """
    _quiet()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in WITHOUT_CONFIGURATION:
            WITHOUT_CONFIGURATION[arguments[0]](arguments[1:])
        else:
            run_lightning(with_recipes(arguments))
    except KeyboardInterrupt:
        print("lightning-prune: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        root = root_cause(error)
        plain = (
            isinstance(root, (OSError, MisconfigurationException))
            or (isinstance(root, ValueError) and root is not error)  # a class on its arguments
            or (isinstance(root, (ValueError, TypeError, KeyError)) and is_ours(root))
        )
        if os.environ.get(DEBUG):
            raise
        if plain:
            fail(_message(root))
        if said_by_first_process():
            raise SystemExit(2) from None
        raise


def _message(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:  # str() of it is a repr
        return str(error.args[0])
    return " ".join(str(error).split())


def _quiet() -> None:
    """Leave out advertising, and advice that cannot be followed."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    disable_progress_bar()
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*is_gradient_checkpointing.*",
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=message)
