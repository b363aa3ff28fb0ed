"""What pruning has finished, block by block, so that the same call goes on after a stop."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.checkpoints.journal import Journal
from lightning_prune.files import hidden_name
from lightning_prune.methods.base import Decision
from lightning_prune.sweep import HiddenStates

__all__ = ["Stage", "Unfinished", "clear_finished"]

_log = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]


class Unfinished:
    """Finished steps of one pruning, in a folder: what was measured and decided of each block.

    A step is on disk whole or not at all. Every process calls every method; process 0 reads and
    writes, and the others are told.

    Args:
        folder: made with the first step.
        work: what everything depends on: the method's call, the model, the calibration set.

    Raises:
        ValueError: the folder has steps of other work; it is said in what it differs.
    """

    def __init__(self, folder: str | Path, work: Mapping[str, Any]) -> None:
        self._folder = Path(folder)
        self._journal = Journal(folder, work)
        distributed.once(self._journal.check)

    def clear(self) -> None:
        """Take the folder away, at once as a whole: what it is about is finished."""
        distributed.once(lambda: _remove(self._folder))

    def get(self, step: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of a step; None: it is not finished."""
        return distributed.once(lambda: self._journal.get(step))

    def tensors(self, step: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors of a step that is finished."""
        return distributed.once(lambda: self._journal.tensors(step))

    def put(self, step: Mapping[str, Any], record: Mapping[str, Any], tensors: Tensors) -> None:
        """Keep what a step has come to."""
        distributed.once(lambda: self._journal.put(step, record, tensors))


def clear_finished(folder: str | Path, work: Mapping[str, Any]) -> None:
    """Take away what an earlier start has left of work that is finished; that of other work stays.

    Every process calls it.
    """
    with suppress(ValueError):  # it is of other work
        Unfinished(folder, work).clear()


def _remove(folder: Path) -> None:
    """Rename the folder first: half of it would be taken for steps whose tensors are lost."""
    old = hidden_name(folder, "old")  # removes what a process that was killed here has left
    if folder.exists():
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)


class Stage:
    """One pass over blocks, of which some may be finished.

    Attributes:
        finished: indices of the blocks that an earlier start has finished.

    Args:
        name: of the stage, one of a kind in its work.
        blocks: that it goes over.
        unfinished: where steps are kept; None: nowhere.
        states: the calibration set, to compare where it stands; None: there is none.
    """

    def __init__(
        self,
        name: str,
        blocks: Sequence[Block],
        unfinished: Unfinished | None,
        states: HiddenStates | None = None,
    ) -> None:
        self._unfinished, self._states = unfinished, states
        self._steps = {b.index: {"stage": name, "block": b.name} for b in blocks}
        self._left = {block.index: len(block.sites) for block in blocks}
        self._tensors: dict[str, torch.Tensor] = {}
        self.finished: frozenset[int] = frozenset()
        if unfinished is not None:
            steps = self._steps.items()
            self.finished = frozenset(i for i, s in steps if unfinished.get(s) is not None)
        if self.finished and distributed.rank() == 0:
            _log.info("%s: %d of %d blocks are done.", name, len(self.finished), len(blocks))

    def scores(self, block: Block) -> dict[str, torch.Tensor]:
        """The scores of a block that is finished."""
        _, tensors = self._read(block)
        return tensors

    def keep_scores(self, block: Block, scores: Tensors) -> None:
        """Keep the scores of a block."""
        if self._unfinished is not None:
            self._unfinished.put(self._steps[block.index], {"tensors": list(scores)}, scores)

    def decision(self, block: Block) -> tuple[Decision, dict[str, torch.Tensor]]:
        """What was decided on a block that is finished, and the scores that were kept."""
        record, tensors = self._read(block)
        if record["states"] != self._checksum():
            _log.warning(
                "the hidden states at %s are not those of the run that was stopped: other "
                "hardware, threads or versions. What follows may differ from it in the last bits.",
                block.name,
            )
        parts: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in _PARTS}
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            parts[kind][name] = tensor
        return Decision(parts["masks"], parts["kept"], parts["weights"]), parts["scores"]

    def keep_decision(self, part: Block, decision: Decision, scores: Tensors) -> None:
        """Keep what was decided on a block, or on some of its sites; it is written with the last.

        Args:
            part: the block, with the sites that were decided on.
            decision: on these.
            scores: to be kept with it.
        """
        if self._unfinished is None:
            return
        tables = (decision.masks, decision.kept, decision.weights, scores)
        for kind, table in zip(_PARTS, tables, strict=True):
            self._tensors |= {f"{kind}/{name}": tensor for name, tensor in table.items()}
        self._left[part.index] -= len(part.sites)
        if self._left[part.index] == 0:
            record = {"states": self._checksum(), "tensors": list(self._tensors)}
            self._unfinished.put(self._steps[part.index], record, self._tensors)
            self._tensors = {}

    def _read(self, block: Block) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """The record of a block, and its tensors in the order in which they were kept."""
        step = self._steps[block.index]
        assert self._unfinished is not None
        record = self._unfinished.get(step)
        assert record is not None, "asked for what is not finished"
        tensors = self._unfinished.tensors(step)
        return record, {name: tensors[name] for name in record["tensors"]}

    def _checksum(self) -> int:
        checksum = 0 if self._states is None else self._states.checksum()
        return int(distributed.sum_(torch.tensor(checksum)))


_PARTS = ("masks", "kept", "weights", "scores")
