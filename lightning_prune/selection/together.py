"""Scores of many matrices compared as if they were one, without putting them side by side.

The threshold is found by counting: of the highest 16 bits of all scores first, then of the next 16
of those that share them, until all bits are known. Each round goes over the matrices one by one,
and so does the mask.

Axes: O output features, I input features, H values of 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from lightning_prune.selection.count import removed_count
from lightning_prune.selection.scope import Ties

__all__ = ["keep_globally"]

_BITS = 16
_CHUNK = 2**24  # scores that are counted at a time: the numbers between take eight bytes each
_KEYS = {torch.float32: torch.int32, torch.float64: torch.int64}


def keep_globally(
    scores: Mapping[str, torch.Tensor], sparsity: float, ties: Ties = "exact"
) -> dict[str, torch.Tensor]:
    """Remove the lowest scores of several matrices as if they were one.

    Args:
        scores: by name, (O, I) each, of one floating-point type.
        sparsity: fraction to remove of all together.
        ties: as in `keep_in_scope`; "exact" takes those of earlier matrices first.
    """
    total = sum(score_OI.numel() for score_OI in scores.values())
    if ties == "reference":
        removed = min(int(total * sparsity) + 1, total)
    else:
        removed = removed_count(total, sparsity)
    if removed == 0:
        return {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    threshold, left = _lowest(scores, removed)
    keep = {}
    for name, score_OI in scores.items():
        keep[name] = (score_OI > threshold).contiguous()
        if ties == "exact":
            tied_N = (score_OI == threshold).flatten().nonzero().flatten()
            keep[name].view(-1)[tied_N[left:]] = True
            left = max(0, left - len(tied_N))
    return keep


def _lowest(scores: Mapping[str, torch.Tensor], removed: int) -> tuple[float, int]:
    """The `removed`-th lowest score, and how many of those that equal it are among the removed."""
    dtype = torch.float64 if _wide(next(iter(scores.values()))) else torch.float32
    width = torch.iinfo(_KEYS[dtype]).bits
    prefix = 0
    for known in range(0, width, _BITS):
        count_H = torch.zeros(2**_BITS, dtype=torch.int64)
        for key_N in _keys(scores):
            if known:
                key_N = key_N[key_N >> (width - known) == prefix]
            digit_N = (key_N >> (width - known - _BITS)) & (2**_BITS - 1)
            count_H += torch.bincount(digit_N, minlength=2**_BITS).cpu()
        if not known:  # the highest bit is the sign: negative numbers come first
            count_H = count_H.roll(2 ** (_BITS - 1))
        below_H = count_H.cumsum(0)
        digit = int(torch.searchsorted(below_H, removed))
        removed -= int(below_H[digit] - count_H[digit])
        prefix = (prefix << _BITS) + digit - (0 if known else 2 ** (_BITS - 1))
    key = torch.tensor(prefix, dtype=_KEYS[dtype])
    return float(_ordered(key).view(dtype)), removed


def _keys(scores: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """Whole numbers in the order of the scores, int64, some at a time."""
    for score_OI in scores.values():
        for part_N in score_OI.detach().flatten().split(_CHUNK):
            part_N = (part_N if _wide(part_N) else part_N.float()) + 0.0  # -0 is 0
            yield _ordered(part_N.view(_KEYS[part_N.dtype])).long()


def _wide(score: torch.Tensor) -> bool:
    return score.dtype == torch.float64


def _ordered(bits: torch.Tensor) -> torch.Tensor:
    """From the bits of floats to whole numbers in their order, and back."""
    largest = torch.iinfo(bits.dtype).max
    return torch.where(bits < 0, bits ^ largest, bits)
