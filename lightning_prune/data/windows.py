"""From documents to windows of tokens.

Axes: B windows of a batch, N windows, T tokens of a window, S tokens of a whole text.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from lightning_prune.data.cache import token_stream
from lightning_prune.data.chats import encoded
from lightning_prune.data.documents import Documents
from lightning_prune.tokens import IGNORED

__all__ = ["Item", "Windows", "blocks", "collate", "random_windows"]

Item = tuple[torch.Tensor, torch.Tensor]
"""A window of token ids (T,), and its labels: the ids again, or `IGNORED`."""


class Windows(Dataset[Item]):
    """Windows of token ids, each a tensor (T,); chats may be shorter than the others.

    Item None is a window that does not count: it fills up the batches of a process that has fewer
    windows than the others.

    Args:
        windows: the token ids.
        labels: what is asked of each window; None: all of it.
    """

    def __init__(
        self,
        windows: list[torch.Tensor] | torch.Tensor,
        labels: list[torch.Tensor] | None = None,
    ) -> None:
        self.windows = windows
        self.labels = windows if labels is None else labels

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int | None) -> Item:
        if index is None:
            return self.windows[0], torch.full_like(self.windows[0], IGNORED)
        return self.windows[index], self.labels[index]


def random_windows(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    seed: int,
    name: str = "calibration text",
    train_on_prompt: bool = False,
) -> Windows:
    """Draw windows for calibration, as the codes of Wanda and SparseGPT do.

    Contiguous text is tokenised whole and cut at random places; windows may overlap. Of separate
    documents only those longer than a window are drawn from, one window each, and a document may
    come twice. A chat is one window, from its start, and comes once.

    Raises:
        ValueError: the text, or every document, is too short, or there are too few chats.
    """
    generator = random.Random(seed)
    if documents.chats:
        shuffled = generator.sample(documents.items, len(documents.items))
        chats = _chat_windows(shuffled, tokenizer, length, train_on_prompt)
        found = list(islice(chats, count))
        if len(found) < count:
            raise ValueError(
                f"the {name} has {len(found)} chats with an answer within {length} tokens; {count} "
                "are asked for. Give more, or lower nsamples."
            )
        return Windows(*map(list, zip(*found, strict=True)))
    if documents.separate:
        return Windows(_from_documents(documents.items, tokenizer, count, length, generator))
    stream_S = token_stream(documents.text(), tokenizer)
    tokens = len(stream_S)
    # More windows than places to start from would be the same text again and again.
    if tokens - length < count:
        raise ValueError(
            f"the {name} has {tokens} tokens, room for {max(0, tokens - length)} different windows "
            f"of {length}; {count} are asked for. Give more text, or lower seqlen or nsamples."
        )
    if tokens < count * length:
        warnings.warn(
            f"the {name} has {tokens} tokens, fewer than {count} windows of {length} hold: "
            "windows will overlap. More text, or lower seqlen or nsamples, avoids it.",
            stacklevel=2,
        )
    starts = [generator.randint(0, tokens - length - 1) for _ in range(count)]
    return Windows(torch.stack([stream_S[start : start + length] for start in starts]))


def blocks(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    name: str = "text",
    train_on_prompt: bool = False,
) -> Windows:
    """Cut a whole text into consecutive windows; the last, partial one is dropped.

    A chat is one window, from its start.

    Raises:
        ValueError: the text is shorter than a window, or no chat has an answer in its window.
    """
    if documents.chats:
        found = list(_chat_windows(documents.items, tokenizer, length, train_on_prompt))
        left_out = len(documents.items) - len(found)
        if not found:
            raise ValueError(
                f"the {name} has {left_out} chats, and none has an answer within its first "
                f"{length} tokens. Give others, or a larger seqlen."
            )
        if left_out:
            warnings.warn(
                f"{left_out} of {len(documents.items)} chats of the {name} have no answer within "
                f"their first {length} tokens, and are left out",
                stacklevel=2,
            )
        return Windows(*map(list, zip(*found, strict=True)))
    stream_S = token_stream(documents.text(), tokenizer)
    if len(stream_S) < length:
        raise ValueError(
            f"the {name} has {len(stream_S)} tokens, fewer than one window of {length}. Give more "
            "text, or a smaller seqlen."
        )
    whole = len(stream_S) // length * length
    return Windows(stream_S[:whole].view(-1, length))


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
) -> list[torch.Tensor]:
    windows: list[torch.Tensor] = []
    too_short: set[int] = set()
    while len(windows) < count:
        index = generator.randint(0, len(texts) - 1)
        if index in too_short:
            continue
        ids = tokenizer(texts[index], verbose=False)["input_ids"]
        if len(ids) > length:
            start = generator.randint(0, len(ids) - length - 1)
            windows.append(torch.tensor(ids[start : start + length]))
            continue
        too_short.add(index)
        if len(too_short) == len(texts):
            raise ValueError(
                f"none of {len(texts)} documents has more than {length} tokens, as a calibration "
                "window needs; ask for a smaller seqlen"
            )
    return windows


def _chat_windows(
    chats: Iterable[Any], tokenizer: PreTrainedTokenizerBase, length: int, train_on_prompt: bool
) -> Iterator[Item]:
    """The first tokens of every chat; those that ask for no token are left out."""
    found = (encoded(chat, tokenizer, length, train_on_prompt) for chat in chats)
    return (item for item in found if item is not None)
