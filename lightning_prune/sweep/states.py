"""The calibration set on its way through the model: hidden states in front of one block.

Axes: B sequences, T tokens (rows of the hidden states), C some of their columns, D hidden size, K
classes that the head tells apart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.anatomy.tasks import logits_at_once
from lightning_prune.evidence.objective import HeadObjective, TaskLoss
from lightning_prune.sweep.around import Around, rows_of
from lightning_prune.sweep.block_calls import BlockCall, SharedCalls
from lightning_prune.sweep.lending import home_device
from lightning_prune.sweep.placement import Placement
from lightning_prune.sweep.store import Offload, stored
from lightning_prune.tokens import IGNORED

__all__ = ["HiddenStates"]


class HiddenStates:
    """The hidden states of every batch, in front of one block after another.

    Made by running the model once with its blocks switched off: that gives what enters the first
    block, and the arguments (masks, rotary tables) that the model itself hands to each, which may
    differ from block to block (sliding and full attention).

    A sweep runs inside `from_start`; behind it the states stand in front of the first block again.

    Args:
        anatomy: of the model.
        batches: what the family's task reads, e.g. dicts with `input_ids` (B, T) and optional
            `attention_mask` (1 = token).
        placement: where weights live and blocks run.
        offload: keep the hidden states in the CPU's memory between blocks, or on the "disk", not on
            the device.

    Raises:
        ValueError: a batch is not of that form, or holds tokens that the model does not have.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        batches: Iterable[Mapping[str, torch.Tensor]],
        placement: Placement,
        offload: Offload = False,
    ) -> None:
        self.anatomy, self.placement, self.offload = anatomy, placement, offload
        self.device = placement.device
        self.batches = [anatomy.task.checked(batch, anatomy.model) for batch in batches]
        keeps = [anatomy.task.counts(batch) for batch in self.batches]
        self._keeps = [None if keep is None else keep.to(self.device) for keep in keeps]
        self._around = Around(anatomy)
        self._calls: list[list[BlockCall]] = []
        self.shared_inputs: dict[int, HiddenStates] | None = None
        self._hidden = self._entering()
        self._at_start = True

    # --- where the states stand ---

    @contextmanager
    def from_start(self, windows: int = 0) -> Iterator[None]:
        """Context in which the states stand in front of the first block.

        Args:
            windows: how many members of the calibration set to take, counted over all processes and
                in whole batches; 0: all.
        """
        every = self._hidden if self._at_start else self._entering()
        self._hidden = list(every[: self._batches_with(windows)] if windows else every)
        del every  # not held through the sweep
        self._at_start = False
        try:
            yield
        finally:
            self._hidden = []

    @contextmanager
    def from_end(self) -> Iterator[None]:
        """Context in which the states stand behind the last block, the head on the device."""
        with self.from_start():
            for block in self.anatomy.blocks:
                with self.placement.block(block):
                    self.advance(block)
            with self.placement.outside():
                yield

    @contextmanager
    def sharing_inputs(self) -> Iterator[None]:
        """Context in which sweeps that keep what stands in front of blocks make it once.

        No block is changed in it. `shared_inputs` is where they leave it, by the block's index.
        """
        shared: dict[int, HiddenStates] = {}
        self.shared_inputs = shared
        try:
            yield
        finally:
            shared.clear()  # the copies in it know it, too
            self.shared_inputs = None

    def beside(self) -> HiddenStates:
        """Hidden states of the same batches that stand where these stand and go their own way."""
        other = copy.copy(self)
        other._hidden = list(self._hidden)
        return other

    def go_to(self, other: HiddenStates) -> None:
        """Stand where hidden states of the same batches stand."""
        self._hidden = list(other._hidden)

    @property
    def indices(self) -> range:
        """Indices of the batches that a sweep goes over."""
        return range(len(self._hidden))

    def entering(self, index: int) -> torch.Tensor:
        """What enters the next block for one batch, (B, T, D), on the device."""
        return self._hidden[index].to(self.device)

    def put(self, index: int, hidden: torch.Tensor) -> None:
        """Let something else enter the next block for one batch."""
        self._hidden[index] = self.kept(hidden)

    def kept(self, hidden: torch.Tensor) -> torch.Tensor:
        """Something as large as hidden states, where these are kept between blocks."""
        return stored(hidden, self.offload)

    def shape(self, index: int) -> torch.Size:
        """(B, T) of a batch's hidden states; the places of feature maps (B, D, H, W) are rows."""
        return rows_of(self._hidden[index])

    def keep(self, index: int) -> torch.Tensor | None:
        """Which rows of a batch count, (B, T) bool on the device; None if all do."""
        return self._keeps[index]

    def members(self, index: int) -> int:
        """How many sequences or images a batch has."""
        return len(self.batches[index][self.anatomy.task.windows_of])

    @property
    def rows(self) -> int:
        """How many rows of this process's batches count."""
        return sum(
            int(keep.sum()) if keep is not None else rows_of(hidden).numel()
            for keep, hidden in zip(self._keeps, self._hidden, strict=True)
        )

    @property
    def bytes(self) -> int:
        """That all hidden states of this process take."""
        return sum(hidden.nbytes for hidden in self._hidden)

    def checksum(self) -> int:
        """Of the bits of all hidden states of this process, where they stand."""
        total = 0
        for hidden in self._hidden:
            total += int(hidden.contiguous().view(torch.int16).sum(dtype=torch.int64))
        return total

    # --- running ---

    def run(self, block: Block, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """What a block hands to the next one, for one batch; of the head, the logits.

        The block is on the device.
        """
        if block.index == len(self.anatomy.blocks):
            return self.logits(index, hidden)
        args, kwargs = self._calls[index][block.index]
        output = block.module(hidden, *args, **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        if block.index not in self._around.stage_ends:
            return output
        return self._around.between(self._inputs(index), block.index, output).to(self.device)

    @torch.no_grad()
    def advance(self, block: Block) -> None:
        """Bring every batch's hidden states behind a block that is on the device."""
        for index in self.indices:
            self.put(index, self.run(block, index, self.entering(index)))

    def logits(
        self, index: int, hidden: torch.Tensor, columns_C: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the model makes of the last block's output: final norm and head.

        Args:
            index: of the batch.
            hidden: the last block's output, (B, T, D), or (B, C, D) for the columns given.
            columns_C: which columns these are; None: all.
        """
        inputs = self._inputs(index)
        if columns_C is not None:
            inputs = self.anatomy.task.selected(inputs, columns_C)
        return self._around.behind(inputs, hidden)

    def losses(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The loss at every target of a batch, in the targets' shape, fp32; 0 where none is asked.

        The head sees some columns at a time, so that the logits of all are never there at once.
        """
        objective = TaskLoss()
        target = self.targets(index, objective)
        losses = torch.zeros(target.shape, device=hidden.device)
        for columns_C, part in self.parts(target):
            here_C = slice(None) if columns_C is None else columns_C.to(hidden.device)
            seen = hidden if columns_C is None else hidden[:, here_C]
            values = self._values(index, objective, columns_C, seen, part)
            losses[(...,) if columns_C is None else (slice(None), here_C)] = values
        return losses

    def head_gradient(
        self, index: int, hidden: torch.Tensor, objective: HeadObjective
    ) -> torch.Tensor:
        """The gradient of a batch's summed objective with respect to the last block's output.

        Not of the mean: divided by a hundred thousand tokens it would vanish in float16. The head
        runs forward and backward on some columns before it sees the next ones.
        """
        gradient_BTD = torch.zeros_like(hidden)
        target = self.targets(index, objective)
        for columns_C, part in self.parts(target):
            here_C = slice(None) if columns_C is None else columns_C.to(hidden.device)
            seen = hidden[:, here_C].detach().requires_grad_()
            with torch.enable_grad():
                total = self._values(index, objective, columns_C, seen, part).sum()
            gradient_BTD[:, here_C] = torch.autograd.grad(total, seen)[0]
        return gradient_BTD

    def targets(self, index: int, objective: HeadObjective | None = None) -> torch.Tensor:
        """What a batch's logits are to say; see `Task.targets`."""
        return (objective or TaskLoss()).targets(self.anatomy.task, self.batches[index])

    def predicted(self) -> int:
        """Number of targets that this process's batches ask for."""
        return sum(int((self.targets(i) != IGNORED).sum()) for i in range(len(self.batches)))

    def _values(
        self,
        index: int,
        objective: HeadObjective,
        columns_C: torch.Tensor | None,
        hidden: torch.Tensor,
        target: torch.Tensor,
    ) -> torch.Tensor:
        logits = self.logits(index, hidden, columns_C)
        flat_N = target.to(logits.device).flatten()
        return objective.values(logits.flatten(0, -2), flat_N).view(target.shape)

    def parts(self, target: torch.Tensor) -> Iterator[tuple[torch.Tensor | None, torch.Tensor]]:
        """The columns of a batch whose logits may be held at once, and their targets."""
        classes = self.anatomy.head.sites[0].module.out_features
        on_cpu = self.device.type == "cpu"
        return self.anatomy.task.parts(target, classes, logits_at_once(on_cpu))

    def _inputs(self, index: int) -> dict[str, torch.Tensor]:
        batch, home = self.batches[index], home_device(self.anatomy.body)
        inputs = self.anatomy.task.called_with(batch)
        return {name: tensor.to(home) for name, tensor in inputs.items()}

    # --- what enters the first block ---

    @torch.no_grad()
    def _entering(self) -> list[torch.Tensor]:
        """Run every batch up to the first block; the first time, note the blocks' arguments."""
        entering = map(self._embedded, range(len(self.batches)))
        return [self.kept(h if self.offload else h.to(self.device)) for h in entering]

    def _embedded(self, index: int) -> torch.Tensor:
        entered = self._around.enter(self._inputs(index))
        if len(self._calls) == index:
            shared = SharedCalls(self.device, self._calls[-1] if self._calls else None)
            self._calls.append([shared.moved(i, call) for i, call in enumerate(entered.calls)])
        return entered.hidden[0]

    def _batches_with(self, windows: int) -> int:
        """How many of this process's batches are among the first that hold so many windows."""
        largest = max((self.members(i) for i in range(len(self.batches))), default=1)
        total, world = -(-windows // largest), distributed.world_size()
        return len(range(distributed.rank(), total, world))
