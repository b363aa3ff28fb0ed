"""From documents to windows of tokens.

Axes: B windows of a batch, N windows, T tokens of a window, S tokens of a whole text.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from lightning_prune.data.cache import token_stream
from lightning_prune.data.chats import encoded
from lightning_prune.data.documents import Documents
from lightning_prune.data.rendering import Rendering
from lightning_prune.data.rows import LeftOut
from lightning_prune.data.templates import Unrenderable
from lightning_prune.tokens import IGNORED, begin_tokens, begun

__all__ = ["Item", "Windows", "collate", "consecutive_windows", "random_windows"]

Item = tuple[torch.Tensor, torch.Tensor]
"""A window of token ids (T,), and its labels: the ids again, or `IGNORED`."""


class Windows(Dataset[Item]):
    """Windows of token ids, each a tensor (T,); chats may be shorter than the others.

    Item None is a window that does not count: it fills up the batches of a process that has fewer
    windows than the others.

    Args:
        windows: the token ids.
        labels: what is asked of each window; None: all of it.
        begin: the begin tokens in front of each window.
    """

    def __init__(
        self,
        windows: list[torch.Tensor] | torch.Tensor,
        labels: list[torch.Tensor] | torch.Tensor | None = None,
        begin: tuple[int, ...] = (),
    ) -> None:
        self.windows = windows
        self.labels = windows if labels is None else labels
        self.begin = begin

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int | None) -> Item:
        if index is None:
            return self.windows[0], torch.full_like(self.windows[0], IGNORED)
        return self.windows[index], self.labels[index]

    def described(self, length: int, tokenizer: Any) -> str:
        """What they are, as "windows of 512 tokens, each begun with <bos>".

        Args:
            length: tokens in a window, or at most, of chats.
            tokenizer: that made them.
        """
        at_most = "" if isinstance(self.windows, torch.Tensor) else " at most"
        return f"windows of {length:,} tokens{at_most}{begun(self.begun_with(tokenizer))}"

    def begun_with(self, tokenizer: Any) -> str:
        """The begin tokens as the tokenizer writes them; empty if there are none."""
        return "".join(tokenizer.convert_ids_to_tokens(list(self.begin)))

    @property
    def highest(self) -> torch.Tensor:
        """The highest token id of all windows."""
        return torch.stack([window_T.max() for window_T in self.windows]).max()

    @property
    def fingerprint(self) -> str:
        """A hash of all tokens, and of the labels where these are others."""
        digest = hashlib.sha256()
        for part in [self.windows] if self.labels is self.windows else [self.windows, self.labels]:
            for window_T in part:
                digest.update(window_T.numpy().tobytes() + b"|")
        return digest.hexdigest()


def random_windows(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    seed: int,
    name: str = "calibration text",
    rendering: Rendering | None = None,
) -> Windows:
    """Draw windows for calibration, as the codes of Wanda and SparseGPT do.

    Contiguous text is tokenised whole and cut at random places; windows may overlap. Of separate
    documents only those longer than a window are drawn from, one window each, and a document may
    come twice. Each window has its begin tokens in front, as `consecutive_windows` says. A chat is
    one window, from its start, and comes once.

    Raises:
        ValueError: the text, or every document, is too short, or there are too few chats, or one
            cannot be rendered.
    """
    generator, rendering = random.Random(seed), rendering or Rendering()
    if documents.chats:
        shuffled = generator.sample(documents.items, len(documents.items))
        items, _ = _chat_windows(shuffled, tokenizer, length, name, rendering, count)
        if len(items) < count:
            raise ValueError(
                f"the {name} has {len(items)} chats with an answer within {length} tokens; {count} "
                "are asked for. Give more, or lower nsamples."
            )
        return Windows([ids_T for ids_T, _ in items], [labels_T for _, labels_T in items])
    begin = _begin(tokenizer, length, rendering)
    room = length - len(begin)
    if documents.separate:
        drawn = _from_documents(documents.items, tokenizer, count, room, generator, not begin)
        return _begun(drawn, begin)
    stream_S = token_stream(documents.text(), tokenizer, special=not begin)
    tokens = len(stream_S)
    # More windows than places to start from would be the same text again and again.
    if tokens - room < count:
        raise ValueError(
            f"the {name} has {tokens} tokens, room for {max(0, tokens - room)} different windows "
            f"of {length}; {count} are asked for. Give more text, or lower length or nsamples."
        )
    if tokens < count * room:
        warnings.warn(
            f"the {name} has {tokens} tokens, fewer than {count} windows of {length} hold: "
            "windows will overlap. More text, or lower length or nsamples, avoids it.",
            stacklevel=2,
        )
    starts = [generator.randint(0, tokens - room - 1) for _ in range(count)]
    return _begun(torch.stack([stream_S[start : start + room] for start in starts]), begin)


def consecutive_windows(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    name: str = "text",
    rendering: Rendering | None = None,
) -> Windows:
    """Cut a whole text into consecutive windows; the last, partial one is dropped.

    A tokenizer that puts a begin token in front of every text has it put in front of every window:
    then n - 1 of its n tokens are of the text, and all of them are predicted. No token of the text
    comes twice, and none is left out but those of the partial window. Without a begin token all n
    are of the text, and the first is not predicted. Either way a window predicts n - 1 tokens.

    A chat is one window, from its start.

    Raises:
        ValueError: the text is shorter than a window, or no chat has an answer in its window, or
            one cannot be rendered.
    """
    rendering = rendering or Rendering()
    if documents.chats:
        items, unanswered = _chat_windows(documents.items, tokenizer, length, name, rendering)
        if not items:
            raise ValueError(
                f"the {name} has {unanswered} chats, and none has an answer within its first "
                f"{length} tokens. Give others, or a higher length."
            )
        if unanswered:
            warnings.warn(
                f"{unanswered} of {len(documents.items)} chats of the {name} have no answer within "
                f"their first {length} tokens, and are left out",
                stacklevel=2,
            )
        return Windows([ids_T for ids_T, _ in items], [labels_T for _, labels_T in items])
    begin = _begin(tokenizer, length, rendering)
    room = length - len(begin)
    stream_S = token_stream(documents.text(), tokenizer, special=not begin)
    if len(stream_S) < room:
        raise ValueError(
            f"the {name} has {len(stream_S)} tokens, fewer than one window of {length}. Give more "
            "text, or a lower length."
        )
    whole = len(stream_S) // room * room
    return _begun(stream_S[:whole].view(-1, room), begin)


def collate(items: list[Item], pad: int) -> dict[str, torch.Tensor]:
    """One batch: `input_ids` and `labels` (B, T), and an `attention_mask` if there is padding.

    Shorter windows are padded on the right. Labels are the tokens themselves, and -100 at padding,
    where nothing is asked, and in windows that do not count.
    """
    longest = max(len(window) for window, _ in items)
    input_ids_BT = torch.full((len(items), longest), pad)
    labels_BT = torch.full_like(input_ids_BT, IGNORED)
    mask_BT = torch.zeros_like(input_ids_BT)
    for i, (window, labels) in enumerate(items):
        input_ids_BT[i, : len(window)] = window
        mask_BT[i, : len(window)] = 1
        labels_BT[i, : len(window)] = labels
    batch = {"input_ids": input_ids_BT, "labels": labels_BT}
    return batch if mask_BT.all() else batch | {"attention_mask": mask_BT}


def _from_documents(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    generator: random.Random,
    special: bool,
) -> list[torch.Tensor]:
    windows: list[torch.Tensor] = []
    too_short: set[int] = set()
    while len(windows) < count:
        index = generator.randint(0, len(texts) - 1)
        if index in too_short:
            continue
        ids = tokenizer(texts[index], add_special_tokens=special, verbose=False)["input_ids"]
        if len(ids) > length:
            start = generator.randint(0, len(ids) - length - 1)
            windows.append(torch.tensor(ids[start : start + length]))
            continue
        too_short.add(index)
        if len(too_short) == len(texts):
            raise ValueError(
                f"none of {len(texts)} documents has more than {length} tokens, as a calibration "
                "window needs; ask for a lower length"
            )
    return windows


def _begin(
    tokenizer: PreTrainedTokenizerBase, length: int, rendering: Rendering
) -> tuple[int, ...]:
    """What windows of text begin with."""
    begin = begin_tokens(tokenizer, rendering.begin_token)
    if len(begin) >= length:
        raise ValueError(
            f"a window of {length} tokens has no room for text behind {len(begin)} begin tokens; "
            "ask for longer ones, or begin_token=False"
        )
    return begin


def _begun(windows: list[torch.Tensor] | torch.Tensor, begin: tuple[int, ...]) -> Windows:
    """Windows with begin tokens in front; none of these is predicted."""
    if not begin:
        return Windows(windows)
    text_NT = torch.stack(list(windows))
    windows_NT = torch.cat([torch.tensor(begin).expand(len(text_NT), -1), text_NT], dim=1)
    if len(begin) == 1:  # nothing predicts the first token
        return Windows(windows_NT, begin=begin)
    labels_NT = windows_NT.clone()
    labels_NT[:, 1 : len(begin)] = IGNORED
    return Windows(windows_NT, labels_NT, begin)


def _chat_windows(
    chats: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    name: str,
    rendering: Rendering,
    most: int | None = None,
) -> tuple[list[Item], int]:
    """The first tokens of so many chats, and how many on the way ask for no token."""
    windows: list[Item] = []
    left_out, unanswered = LeftOut(rendering.bad_rows), 0
    for number, chat in enumerate(chats, 1):
        if len(windows) == most:
            break
        try:
            item = encoded(chat, tokenizer, length, rendering)
        except Unrenderable as error:
            left_out.note(f"{getattr(chat, 'row', '') or f'chat {number} of the {name}'} {error}")
            continue
        if item is None:
            unanswered += 1
        else:
            windows.append(item)
    left_out.say(len(windows) + unanswered + len(left_out.reasons), f"chats of the {name}")
    return windows, unanswered
