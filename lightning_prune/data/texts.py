"""The windows of every use that text is put to: read, cut, named, and kept.

Nothing of Lightning is in here.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_prune import distributed
from lightning_prune.data.cache import tokenizer_text
from lightning_prune.data.documents import Documents
from lightning_prune.data.kept import KeptTokens
from lightning_prune.data.protocols import SEEN
from lightning_prune.data.rendering import Rendering, day_of
from lightning_prune.data.rows import BadRows
from lightning_prune.data.sources import read
from lightning_prune.data.templates import is_dated
from lightning_prune.data.windows import Windows, consecutive_windows, random_windows
from lightning_prune.tokens import begin_tokens, check_known

__all__ = ["SEEN", "Texts"]


class Texts:
    """Windows for "calibration", "train", "validation" and "test", made when they are asked for.

    Attributes:
        tokenizer: whose tokens they are; None before one is attached.
        length: tokens in a window; 0 while that is not known.
        vocabulary: how many tokens the model has; None if that is not known.
        day: the day that chat templates are told is today.
        windows: by use, those that have been made.

    Args:
        sources: by use, where text comes from.
        nsamples: as for `TextData`, and so are the others.
        seed: of the calibration windows.
        text_column: that holds the text.
        train_on_prompt: of chats.
        begin_token: of windows of text.
        date: None: today.
        bad_rows: what is done about them.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        nsamples: int,
        seed: int,
        text_column: str,
        train_on_prompt: bool,
        begin_token: bool | None,
        date: str | None,
        bad_rows: BadRows,
    ) -> None:
        self.sources = dict(sources)
        self.nsamples, self.seed, self.text_column = nsamples, seed, text_column
        self.train_on_prompt, self.begin_token = train_on_prompt, begin_token
        self.date, self.day, self.bad_rows = date, day_of(date), bad_rows
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.length = 0
        self.vocabulary: int | None = None
        self.windows: dict[str, Windows] = {}
        self._parts: dict[str, str] = {}
        self._chats: set[str] = set()
        self._calibrated_on: dict[str, Any] = {}

    @property
    def rendering(self) -> Rendering:
        """How text becomes tokens."""
        return Rendering(self.begin_token, self.train_on_prompt, self.day, self.bad_rows)

    @property
    def dated(self) -> str | None:
        """The day that is written in the tokens; None if none is."""
        asked = self.tokenizer is not None and self._chats and is_dated(self.tokenizer)
        return self.day.isoformat() if asked else None

    def described(self, use: str, most: int | None = None) -> str:
        """What the figures of a use are of: text, split, number of windows and their length.

        Args:
            use: "validation" or "test".
            most: so many windows are looked at, if there are more; None: all.
        """
        windows = self._windows(use)
        count = len(windows) if most is None else min(most, len(windows))
        windows_text = windows.described(self.length, self.tokenizer)
        dated = f", dated {self.dated}" if use in self._chats and self.dated else ""
        return f"{self.sources[use]} ({self._parts[use]}): {count:,} {windows_text}{dated}"

    def begun_with(self, use: str) -> str:
        """The begin tokens of the windows of a use, as the tokenizer writes them; else empty."""
        return self._windows(use).begun_with(self.tokenizer)

    def calibration_fingerprint(self) -> str:
        """A hash of all calibration tokens and labels, the same in every process."""
        return self._windows("calibration").fingerprint

    def restore(self, folder: str | Path) -> None:
        """Calibrate on the tokens that a run's folder keeps, and take its date, if they fit.

        They do if the run asked for the same of the same text, with the same tokenizer. Every
        process has to call it.
        """
        kept = distributed.once(lambda: KeptTokens.load(folder))
        if kept is None or (self.date is not None and kept.day != self.day):
            return
        documents = self._read("calibration")
        settings = self._asked(documents)
        if kept.settings == settings:
            self._note("calibration", documents)
            self.windows["calibration"], self._calibrated_on = kept.windows, settings
            self._go_back_to(kept.day)

    def keep(self, folder: str | Path) -> None:
        """Leave the calibration tokens in a run's folder."""
        windows = self._windows("calibration")
        KeptTokens(windows, self._calibrated_on, self.day).save(folder)

    def _use(self, tokenizer: PreTrainedTokenizerBase, length: int, vocabulary: int | None) -> None:
        """Make windows of these tokens from now on."""
        if (self.length, self.vocabulary) != (
            length,
            vocabulary,
        ) or self.tokenizer is not tokenizer:
            self.windows.clear()
        self.tokenizer, self.length, self.vocabulary = tokenizer, length, vocabulary

    def _read(self, use: str) -> Documents:
        split = "train" if use in SEEN else use
        documents = read(self.sources[use], split, self.text_column, bad_rows=self.bad_rows)
        if use in SEEN and documents.chats:
            for other in ("validation", "test"):
                with suppress(FileNotFoundError, ValueError):  # what is not there cannot leak
                    documents = documents.without(self._read(other))
            if not documents.items:
                raise ValueError(
                    f"every prompt of the {use} text of {self.sources[use]!r} is in the validation "
                    "or test text too, and nothing is left. Give other text for one of them."
                )
        return documents

    def _windows(self, use: str) -> Windows:
        if self.tokenizer is None:
            raise ValueError(
                "there is no tokenizer. Take a model whose folder has one, set train_tokenizer for "
                "a model that starts from random weights, or call attach(tokenizer, max_length)."
            )
        if use not in self.windows:
            documents, name = self._read(use), f"{use} text of {self.sources[use]!r}"
            self._note(use, documents)
            if use == "calibration":
                self._calibrated_on = self._asked(documents)
                how = self.nsamples, self.length, self.seed, name, self.rendering
                windows = random_windows(documents, self.tokenizer, *how)
            else:
                windows = consecutive_windows(
                    documents, self.tokenizer, self.length, name, self.rendering
                )
            if self.vocabulary is not None:
                check_known(windows.highest, self.vocabulary, self.tokenizer, name)
            self.windows[use] = windows
        return self.windows[use]

    def _note(self, use: str, documents: Documents) -> None:
        self._parts[use] = documents.part or use
        (self._chats.add if documents.chats else self._chats.discard)(use)

    def _asked(self, documents: Documents) -> dict[str, Any]:
        """All that the calibration tokens are made of, but for the date."""
        assert self.tokenizer is not None
        tokenizer = f"{tokenizer_text(self.tokenizer)}\0{self.tokenizer.chat_template}"
        return {
            "nsamples": self.nsamples,
            "length": self.length,
            "seed": self.seed,
            "train_on_prompt": self.train_on_prompt,
            "bad_rows": self.bad_rows,
            "begin": list(begin_tokens(self.tokenizer, self.begin_token)),
            "text": documents.fingerprint,
            "tokenizer": hashlib.sha256(tokenizer.encode(errors="surrogatepass")).hexdigest(),
        }

    def _go_back_to(self, day: datetime.date) -> None:
        """Take the day on which the run began; what was rendered today is rendered anew."""
        if day != self.day and self.dated:
            for use in self._chats - {"calibration"}:
                self.windows.pop(use, None)
        self.day = day
