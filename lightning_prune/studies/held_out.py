"""Windows of training text that nothing else has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from lightning_prune.studies.bench import Batches

__all__ = ["held_out_of"]

PASSAGE = 16
"""Windows that share so many tokens in a row are taken from the same place."""


def held_out_of(
    training: Iterable[Mapping[str, torch.Tensor]], seen: Batches, count: int, length: int
) -> Batches:
    """Training windows that share no passage with those that are seen.

    Args:
        training: training batches.
        seen: batches whose text must not come again.
        count: how many windows to take.
        length: tokens in a window.

    Raises:
        ValueError: there are not so many.
    """
    length = min(PASSAGE, length)
    taken = {
        passage
        for batch in seen
        for window in batch["input_ids"].tolist()
        for passage in _passages(window, length)
    }
    held_out: Batches = []
    for batch in training:
        for i, window in enumerate(batch["input_ids"].tolist()):
            if taken.isdisjoint(_passages(window, length)):
                held_out.append({name: tensor[i : i + 1] for name, tensor in batch.items()})
            if len(held_out) == count:
                return held_out
    raise ValueError(
        f"the training text has {len(held_out)} windows that share nothing with the calibration "
        f"and validation windows, and {count} are asked for, by held_out and stages. Give more "
        "text, or lower these or nsamples."
    )


def _passages(window: Sequence[int], length: int) -> set[int]:
    return {hash(tuple(window[i : i + length])) for i in range(len(window) - length + 1)}
