"""Loaders that share windows, or images, among processes, and continue in the middle of an epoch.

What is said of windows here holds for images, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

__all__ = ["ResumableLoader", "ShardSampler", "calibration_loader", "check_amounts", "loader"]


Collate = Callable[[list[Any]], dict[str, torch.Tensor]]
"""Makes a batch of windows."""


def check_amounts(nsamples: int, batch_size: int, num_workers: int) -> None:
    """Refuse amounts with which nothing can be loaded.

    Raises:
        ValueError: one of them is too small.
    """
    least = {"nsamples": 1, "batch_size": 1, "num_workers": 0}
    for name, value in zip(least, (nsamples, batch_size, num_workers), strict=True):
        if value < least[name]:
            raise ValueError(f"{name}={value}; at least {least[name]} is needed")


def calibration_loader(
    windows: Dataset[Any],
    batch_size: int,
    collate: Collate,
    rank: int,
    world: int,
    kind: str = "windows",
) -> DataLoader[Any]:
    """One process's share of the calibration batches.

    The batches are the same whatever the number of processes; each takes every n-th of them.

    Args:
        windows: to take all of.
        batch_size: of them, in a batch.
        collate: makes the batch.
        rank: the number of this process.
        world: how many there are.
        kind: what a message calls the windows.

    Raises:
        ValueError: there are fewer batches than processes.
    """
    count = len(windows)  # type: ignore[arg-type]
    order = list(range(count))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches) < world:
        raise ValueError(
            f"{count} calibration {kind} in batches of {batch_size} are {len(batches)} "
            f"batches, for {world} processes. Give each at least one: more nsamples, or a smaller "
            "batch_size."
        )
    return DataLoader(
        windows,
        batch_sampler=batches[rank::world],
        collate_fn=collate,
        generator=torch.Generator(),
    )


def loader(
    windows: Dataset[Any],
    sampler: ShardSampler,
    batch_size: int,
    collate: Collate,
    num_workers: int = 0,
) -> DataLoader[Any]:
    """Batches of one process's share of windows; one that is shuffled can be resumed."""
    made = (ResumableLoader if sampler.shuffle else DataLoader)(
        windows,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator(),  # one of its own: the global random state is left alone
    )
    if isinstance(made, ResumableLoader):
        made.processes = sampler.num_replicas
    return made


class ShardSampler(DistributedSampler[Any]):
    """Every `world`-th window for this process, shuffled by epoch if asked for.

    Every process gets the same number of windows, as sharded models need. When shuffling (for
    training), a remainder that cannot be shared is left out; otherwise the last windows are filled
    up with `None`, which `Windows` turns into windows that count for nothing.

    Being a DistributedSampler, it is not replaced by Lightning.

    Args:
        windows: what to share out.
        rank: the number of this process.
        world: how many there are.
        shuffle: for training.
        seed: of the shuffling.
        alike: batches of so many windows, over all processes, are of like lengths when shuffling;
            None: of any.
    """

    def __init__(
        self,
        windows: Dataset[Any],
        rank: int,
        world: int,
        shuffle: bool,
        seed: int,
        alike: int | None = None,
    ) -> None:
        super().__init__(windows, world, rank, shuffle, seed, drop_last=shuffle)
        self.alike = alike
        self.ahead = 0
        """How far `epoch` has run ahead of the epochs that were drawn."""

    def __iter__(self) -> Iterator[Any]:
        total = len(self.dataset)  # type: ignore[arg-type]
        order: list[int | None] = list(range(total))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch - self.ahead)
            order = torch.randperm(total, generator=generator).tolist()
            if self.alike is not None:
                order = self._by_length(order, self.alike, generator)
        order = (order + [None] * self.num_replicas)[: self.total_size]
        return iter(order[self.rank :: self.num_replicas])

    def _by_length(
        self, order: list[Any], size: int, generator: torch.Generator
    ) -> list[int | None]:
        """Sort what fifty batches hold by length, and shuffle the batches; a partial one is last.

        Sorted as a whole, the epochs would be made of the same batches again and again.
        """
        windows = self.dataset.windows  # type: ignore[attr-defined]
        batches: list[list[int]] = []
        for many in _cut(order, 50 * size):
            batches += _cut(sorted(many, key=lambda i: len(windows[i])), size)
        whole = [batch for batch in batches if len(batch) == size]
        rest = [batch for batch in batches if len(batch) < size]
        shuffled = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
        return [index for batch in shuffled + rest for index in batch]


def _cut(items: list[int], size: int) -> list[list[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


class ResumableLoader(DataLoader[Any]):
    """A DataLoader whose place in the epoch is part of Lightning's checkpoints.

    Attributes:
        processes: how many processes share an epoch's windows.
        finished: tells how many batches of the epoch the training loop is through with; one that
            an exception interrupted comes again after resuming.
    """

    processes = 1
    finished: Callable[[], int] | None = None
    _resume: dict[str, int] | None = None
    _epoch = 0
    _batches = 0
    _ahead = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, so that nothing is drawn before the first batch is asked for: after a resume
        # Lightning calls iter() first, and tells the sampler its epoch then.
        self._epoch, self._batches = getattr(self.sampler, "epoch", 0), 0
        if (state := self._resume) is not None:
            self._resume, self._ahead = None, state["ahead"]
            if self._epoch == state["epoch"] and state["batches"] < state["of"]:
                self._batches = state["batches"]
            elif state["batches"]:
                # The next epoch. Resuming from the end of one, Lightning may count one too many.
                self._ahead = self._epoch - (state["epoch"] - state["ahead"] + 1)
        if isinstance(self.sampler, ShardSampler):
            self.sampler.ahead = self._ahead
        for batch in islice(super().__iter__(), self._batches, None):
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, how many of its batches are done, and what these numbers depend on."""
        if self._resume is not None:
            return self._resume
        done = self._batches if self.finished is None else min(self._batches, self.finished())
        return {"epoch": self._epoch, "ahead": self._ahead, "batches": done, **self._shape()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """In the epoch of `state`, go on after its batches; the epochs after it are whole.

        Raises:
            ValueError: `state` is from the middle of an epoch of other batches.
        """
        shape = self._shape()
        saved = {name: state[name] for name in shape}
        if saved != shape and 0 < state["batches"] < state["of"]:
            raise ValueError(
                f"the checkpoint was written after batch {state['batches']} of an epoch of "
                f"{_described(saved)}; this run has {_described(shape)}, so that epoch cannot be "
                "continued. Resume with the same text, length, batch_size and number of processes."
            )
        self._resume = dict(state)

    def _shape(self) -> dict[str, int]:
        return {"of": len(self), "size": self.batch_size or 1, "processes": self.processes}


def _described(shape: dict[str, int]) -> str:
    return "{of} batches of {size} windows in {processes} process(es)".format(**shape)
