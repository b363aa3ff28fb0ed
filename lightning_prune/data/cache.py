"""Tokenised text on disk, so that the same text is tokenised once.

Axes: S tokens of a whole text.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from lightning_prune.files import save_tensors

__all__ = ["cache_folder", "token_stream", "tokenizer_text"]

VARIABLE = "LIGHTNING_PRUNE_CACHE"
PIECE = 1 << 24


def cache_folder() -> Path:
    """The folder in $LIGHTNING_PRUNE_CACHE, else ~/.cache/lightning_prune."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "lightning_prune")


def token_stream(
    text: str, tokenizer: PreTrainedTokenizerBase, special: bool = True
) -> torch.Tensor:
    """The token ids of a whole text, (S,), from the cache if they were made before.

    A damaged cache file is made again; a folder that cannot be written costs a warning.

    Args:
        text: of any length.
        tokenizer: of the model.
        special: the text begins with the special tokens that the tokenizer puts there; they stand
            at the start of the whole text only.
    """
    path = cache_folder() / f"{_key(text, tokenizer, special)}.safetensors"
    try:
        return load_file(path)["tokens"].long()
    except (OSError, SafetensorError, KeyError):
        pass
    stream_S = _tokenise(text, tokenizer, special)
    try:
        save_tensors(path, {"tokens": stream_S.int()})
    except OSError as error:
        warnings.warn(
            f"cannot cache tokens in {path.parent} ({error.strerror}); set {VARIABLE} to a folder "
            "that can be written",
            stacklevel=2,
        )
    return stream_S


def _tokenise(text: str, tokenizer: PreTrainedTokenizerBase, special: bool) -> torch.Tensor:
    """Tokenise in pieces that end with a line: WikiText-103 whole would take tens of gigabytes."""
    pieces: list[torch.Tensor] = []
    start = 0
    while start < len(text) or not pieces:
        end = start + PIECE
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        first = special and start == 0
        ids = tokenizer(text[start:end], add_special_tokens=first, verbose=False)["input_ids"]
        pieces.append(torch.tensor(ids, dtype=torch.long))
        start = end
    return torch.cat(pieces)


def tokenizer_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that a tokenizer's tokens of a text depend on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    # How the last batch was padded and cut is left over in it, and is no part of it.
    return json.dumps(json.loads(backend.to_str()) | {"padding": None, "truncation": None})


def _key(text: str, tokenizer: PreTrainedTokenizerBase, special: bool) -> str:
    head = f"{PIECE}\0{'special' if special else 'plain'}\0{tokenizer_text(tokenizer)}\0"
    digest = hashlib.sha256(head.encode(errors="surrogatepass"))
    digest.update(text.encode(errors="surrogatepass"))
    return digest.hexdigest()
