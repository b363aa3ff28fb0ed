"""Arguments of the commands that take no configuration."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NoReturn, get_args

import torch

from lightning_prune.cli.errors import fail
from lightning_prune.models.loading import QUICKSTART, DType, Source

__all__ = ["Parser", "add_models", "device", "folder", "known_model", "model_folder", "writable"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        fail(message)


def add_models(parser: argparse.ArgumentParser) -> None:
    """The models that a command loads one after the other, and where it runs them."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help=f"a folder, a name on the hub, or {QUICKSTART!r}"
    )
    parser.add_argument("--dtype", choices=get_args(DType), default="auto", help="of the weights")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=best, help=f"default here: {best}")
    parser.add_argument("--trust_remote_code", action="store_true", help="run a model's own code")


def device(name: str) -> torch.device:
    """A device that is there.

    Raises:
        argparse.ArgumentTypeError: there is none of that name.
    """
    try:
        found = torch.device(name)
        torch.empty(1, device=found).item()
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


def writable(folder: Path | None) -> None:
    """Make a folder, and try whether a file can be written there, before work is done for it.

    Raises:
        OSError: it cannot.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def known_model(path: str) -> str:
    """Where a model of a family that we know lies; never asks the hub.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ValueError: the model is of no family that we know.
    """
    location = model_folder(path)
    Source(location).config()
    return location


def model_folder(path: str) -> str:
    """Where a model lies; never asks the hub.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
    """
    if path != QUICKSTART and not Path(path).expanduser().is_dir():
        raise FileNotFoundError(f"no folder {path!r}; give one that holds config.json and weights")
    return Source(path).location
