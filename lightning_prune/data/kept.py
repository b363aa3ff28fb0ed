"""The calibration tokens of a run, kept in its folder: they are the run's, whatever comes later.

Chat templates write the date, and libraries render and tokenise a little otherwise in their next
version. A run that is started again goes on with the tokens that its plan was made with, as long as
it asks for the same of the same text.

Axes: N windows, S tokens of all windows one after another.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lightning_prune.data.windows import Windows
from lightning_prune.files import save_tensors

__all__ = ["KEPT", "KeptTokens"]

KEPT = "calibration.safetensors"
"""The name of the file."""


@dataclass(frozen=True)
class KeptTokens:
    """Calibration windows, and what they were made of.

    Attributes:
        windows: the windows and their labels.
        settings: what was asked for, and hashes of the text and the tokenizer, as JSON says them.
        day: the day that chat templates were told.
    """

    windows: Windows
    settings: Mapping[str, Any]
    day: date

    def save(self, folder: str | Path) -> None:
        """Write them into a folder, atomically."""
        windows, same = self.windows, self.windows.labels is self.windows.windows
        tensors = {
            "tokens": _flat(windows.windows),
            "lengths": torch.tensor([len(window) for window in windows.windows]),
            **({} if same else {"labels": _flat(windows.labels)}),
        }
        facts = {
            "settings": self.settings,
            "day": self.day.isoformat(),
            "stacked": isinstance(windows.windows, torch.Tensor),
            "sha256": _digest(tensors),
        }
        save_tensors(Path(folder) / KEPT, tensors, {"calibration": json.dumps(facts)})

    @classmethod
    def load(cls, folder: str | Path) -> KeptTokens | None:
        """Those that a folder keeps; None if it has none, or, with a warning, damaged ones."""
        path = Path(folder) / KEPT
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["calibration"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["sha256"] != _digest(tensors):
                raise ValueError("its tokens do not match their hash")
            lengths = tensors["lengths"].tolist()
            parts = {
                n: tensors[n].long().split(lengths) for n in ("tokens", "labels") if n in tensors
            }
            made = {n: torch.stack(p) if facts["stacked"] else list(p) for n, p in parts.items()}
            begin = tuple(facts["settings"]["begin"])
            windows = Windows(made["tokens"], made.get("labels"), begin)
            return cls(windows, facts["settings"], date.fromisoformat(facts["day"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            warnings.warn(f"{path} is damaged ({error}); it is made again", stacklevel=2)
            return None


def _flat(windows: list[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """All windows one after another, (S,)."""
    return torch.cat(list(windows)).int()


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
