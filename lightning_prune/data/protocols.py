"""What the other rooms ask of a data module, whatever its class is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

from lightning_prune.data.rendering import Rendering
from lightning_prune.data.windows import Windows

__all__ = ["SEEN", "Calibrating", "Windowed", "begun_with", "sources_of"]

SEEN = ("calibration", "train")
"""What a model is made with; the other uses measure it."""


@runtime_checkable
class Calibrating(Protocol):
    """A data module that methods can calibrate on: any of Lightning's, with one loader more."""

    def calibration_dataloader(self) -> Iterable[Any]:
        """This process's share of the calibration batches."""


@runtime_checkable
class Windowed(Calibrating, Protocol):
    """One that knows what its windows of text are made of; `TextData` says more of each name."""

    sources: dict[str, str]
    nsamples: int
    windows: dict[str, Windows]

    @property
    def rendering(self) -> Rendering:
        """How text becomes tokens."""

    def attach(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        vocabulary: int | None = None,
    ) -> Any:
        """Make windows of these tokens, without a Trainer."""

    def begun_with(self, use: str) -> str:
        """The begin tokens of the windows of a use; empty if there are none."""

    def calibration_fingerprint(self) -> str:
        """A hash of all calibration tokens, the same in every process."""

    def restore(self, folder: str | Path) -> None:
        """Calibrate on the tokens that a folder keeps, if they fit."""

    def keep(self, folder: str | Path) -> None:
        """Leave the calibration tokens in a folder."""


def sources_of(data: object) -> Mapping[str, str]:
    """By use, where a data module's text comes from; empty where it does not say."""
    return data.sources if isinstance(data, Windowed) else {}


def begun_with(data: object, use: str) -> str:
    """What windows of a use begin with; empty where a data module does not say."""
    return data.begun_with(use) if isinstance(data, Windowed) else ""
