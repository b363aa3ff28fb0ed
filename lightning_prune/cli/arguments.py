"""Arguments of the commands that take no configuration."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

import torch

from lightning_prune.cli.errors import fail
from lightning_prune.models.loading import QUICKSTART, Source

__all__ = ["Parser", "device", "folder", "model_folder"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        fail(message)


def device(name: str) -> torch.device:
    """A device that is there.

    Raises:
        argparse.ArgumentTypeError: there is none of that name.
    """
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise argparse.ArgumentTypeError(f"device {name!r} cannot be used: {reason}") from error
    return found


def folder(name: str) -> Path:
    """A folder to write into, which need not be there yet.

    Raises:
        argparse.ArgumentTypeError: a file is there.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{name} is a file; give the name of a folder")
    return path


def model_folder(path: str) -> str:
    """Where a model lies; never asks the hub.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
    """
    if path != QUICKSTART and not Path(path).expanduser().is_dir():
        raise FileNotFoundError(f"no folder {path!r}; give one that holds config.json and weights")
    return Source(path).location
