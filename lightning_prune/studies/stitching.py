"""Models stitched from what a method does to each block at several shares, and judged."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.anatomy import Block
from lightning_prune.evaluation.divergence import Divergence
from lightning_prune.pipeline.candidates import Candidates, make_candidates
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.studies.bench import Batches, Bench, digest_of
from lightning_prune.studies.evolution import Levels
from lightning_prune.studies.slots import Prunes, Slots

__all__ = ["Stitching"]


class Stitching:
    """Stitches models of one method, and judges them by their divergence from the dense one.

    Args:
        bench: the dense model, its calibration text, and a journal for candidates and values.
        method: gives every block the mean share.
        slots: what gets a share of its own.
        text: windows to judge by, one in each batch.
        reuse: what has been collected of the dense model.
    """

    def __init__(
        self, bench: Bench, method: Prunes, slots: Slots, text: Batches, reuse: Reuse
    ) -> None:
        assert bench.journal is not None, "candidates are kept"
        self._bench, self._slots, self._text, self._journal = bench, slots, text, bench.journal
        shares = sorted({share for slot in slots.each for share in slot.shares if share})
        self._work = {
            "call": repr(method),
            "calibration": digest_of(bench.calibration),
            "shares": shares,
            "apart": slots.per == "part",
        }
        name = hashlib.sha256(json.dumps(self._work).encode()).hexdigest()[:16]
        self._candidates: Candidates = make_candidates(
            copy.deepcopy(bench.module.base),
            method,
            bench.calibration,
            shares,
            bench.journal.folder / "candidates" / name,
            bench.device,
            reuse,
            apart=slots.per == "part",
        )

    def judge(self, levels: Sequence[Levels], windows: int) -> list[float]:
        """Of each stitched model, the mean divergence of a token, in nats.

        Args:
            levels: what they are made of, by slot.
            windows: on how many of the windows.
        """
        step = self._work | {
            "text": digest_of(self._text[:windows]),
            "levels": [list(one) for one in levels],
        }
        record = self._journal.get(step)
        if record is None:
            record = self._journal.put(step, {"values": self._judged(levels, windows)})
        lowest = min(record["values"])
        rank_zero_info(f"{len(levels)} models on {windows} windows: divergence {lowest:.4g}")
        return list(record["values"])

    def _judged(self, levels: Sequence[Levels], windows: int) -> list[float]:
        chosen = [self._choices(one) for one in levels]
        sums = self._divergence.of(chosen, self._change, windows)
        places = sum(self._divergence.places[:windows])
        return [sum(one) / places for one in sums]

    @cached_property
    def _divergence(self) -> Divergence:
        return Divergence(self._bench.module.base, self._text, self._bench.device)

    def _choices(self, levels: Levels) -> list[Hashable]:
        """By block of the model, its slots with their shares; None: nothing is removed of it."""
        choices: list[Any] = [None] * len(self._divergence.anatomy.blocks)
        for slot, (one, level) in enumerate(zip(self._slots.each, levels, strict=True)):
            if level:
                index = one.part.index
                choices[index] = (*(choices[index] or ()), (slot, one.shares[level]))
        return choices

    def _change(self, block: Block, choice: Any) -> None:
        parts = [(self._slots.each[slot].part, share) for slot, share in choice]
        self._candidates.stitch(block, parts)
