"""Where the weights of a model live, and how they come to the device that runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.checkpoints.mapped import WeightFiles, files_of
from lightning_prune.machine import free_on_device, read_ahead
from lightning_prune.sweep.ahead import ROOM, Ahead
from lightning_prune.sweep.lending import home_device, on_device, tensors_of

__all__ = [
    "InMemory",
    "Mapped",
    "Placement",
    "evaluating",
    "placement_of",
    "replaced_forward",
]


class Placement(ABC):
    """Where the weights of a model's blocks live, and where they run.

    Sweeps ask it for the blocks that they run; nothing else moves weights.

    Args:
        anatomy: of the model.
        device: where blocks run.
    """

    def __init__(self, anatomy: Anatomy, device: torch.device) -> None:
        self.anatomy, self.device = anatomy, device
        self._to_check: dict[int, Block] = {}  # blocks to look at when they are first here

    @contextmanager
    def blocks(self, blocks: Sequence[Block]) -> Iterator[None]:
        """Context in which blocks, with all their weights, are on the device.

        What is changed in them stays changed. The head counts as a block.
        """
        with self._lent(blocks):
            for block in blocks:
                if whole := self._to_check.pop(block.index, None):
                    _check_weights(whole)
            yield

    @contextmanager
    def checking_weights(self) -> Iterator[None]:
        """Context in which a block whose weights are not finite is refused.

        It is looked at on its first visit, on the device, so that no pass over the model is made
        for it; when the context ends, those that had no visit are.

        Raises:
            ValueError: a weight is NaN or infinite.
        """
        self._to_check = {block.index: block for block in self.anatomy.blocks}
        try:
            yield
            for block in list(self._to_check.values()):
                with self.block(block):
                    pass
        finally:
            self._to_check = {}

    @abstractmethod
    def _lent(self, blocks: Sequence[Block]) -> AbstractContextManager[None]:
        """Context in which blocks are on the device."""

    @abstractmethod
    def outside(self) -> AbstractContextManager[None]:
        """Context in which embeddings, final norm and head are on the device."""

    @abstractmethod
    def edited(self, block: Block) -> AbstractContextManager[None]:
        """Context in which a block's weights are changed, or cut, where they lie."""

    @property
    def saves_memory(self) -> bool:
        """Whether memory is to be saved where it costs time."""
        return False

    @abstractmethod
    def bytes_missing(self) -> int:
        """Bytes that the blocks' weights would take on the device, beyond those that are there."""

    @contextmanager
    def block(self, block: Block) -> Iterator[Block]:
        """Context in which one block is on the device."""
        with self.blocks([block]):
            yield block


class InMemory(Placement):
    """The whole model is in memory, as a rule the CPU's; a block moves to the device and back."""

    in_place = True  # what was changed on the device is written where the weights were

    def __init__(self, anatomy: Anatomy, device: torch.device) -> None:
        super().__init__(anatomy, device)
        self._ahead: Ahead | None = None
        self._visited = -1  # index of the block that was here last

    @contextmanager
    def _lent(self, blocks: Sequence[Block]) -> Iterator[None]:
        """Move them, and take each back to where it was."""
        modules = []
        for block in blocks:
            is_head = block.index == len(self.anatomy.blocks)
            modules += self.anatomy.outside if is_head else [block.module]
        copies = self._ahead.take(modules) if self._ahead else {}
        with on_device(modules, self.device, self.in_place, copies):
            if len(blocks) == 1 and (following := self._following(blocks[0].index)):
                self._come(following)
            yield

    def _following(self, index: int) -> Block | None:
        """The block that a sweep is going to come to behind this one, as far as can be told."""
        following, self._visited = index + (index - self._visited), index
        near = abs(following - index) == 1 and 0 <= following < len(self.anatomy.blocks)
        return self.anatomy.blocks[following] if near else None

    def _come(self, block: Block) -> None:
        """Let a block come to the device while another one is at work, if there is much room."""
        if not copies_ahead(self.device) or home_device(block.module).type != "cpu":
            return
        if ROOM * sum(t.nbytes for t in tensors_of(block.module)) < free_on_device(self.device):
            self._ahead = self._ahead or Ahead(self.device)
            self._ahead.begin(block.module)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Move what is no block, and take it back."""
        with on_device(self.anatomy.outside, self.device, self.in_place):
            yield

    def edited(self, block: Block) -> AbstractContextManager[None]:
        """They are in memory already."""
        if self._ahead is not None:
            self._ahead.forget()
        return nullcontext()

    def bytes_missing(self) -> int:
        """Those of blocks that are elsewhere."""
        return sum(
            parameter.numel() * parameter.element_size()
            for block in self.anatomy.blocks
            for parameter in block.module.parameters()
            if parameter.device != self.device
        )


class Mapped(InMemory):
    """The weights are files that are mapped into memory; a block that was changed becomes one.

    Of all blocks that have been visited, none stays in memory.

    Args:
        anatomy: of the model.
        device: where blocks run.
        files: of the model's weights.
    """

    in_place = False  # the files are not written to

    def __init__(self, anatomy: Anatomy, device: torch.device, files: WeightFiles) -> None:
        super().__init__(anatomy, device)
        self.files = files

    @contextmanager
    def _lent(self, blocks: Sequence[Block]) -> Iterator[None]:
        """Move them, and settle what was changed when they are back."""
        with self._settled(blocks), super()._lent(blocks):
            yield

    def _come(self, block: Block) -> None:
        """Let the disk be read, too."""
        read_ahead(block.module.parameters())
        super()._come(block)

    @property
    def saves_memory(self) -> bool:
        """That is what the model is in its files for."""
        return True

    @contextmanager
    def edited(self, block: Block) -> Iterator[None]:
        """Settle what was changed."""
        with super().edited(block), self._settled([block]):
            yield

    @contextmanager
    def _settled(self, blocks: Sequence[Block]) -> Iterator[None]:
        before = [self.files.versions(self._parameters(block)) for block in blocks]
        yield
        for block, versions in zip(blocks, before, strict=True):
            self.files.settle(block.name, self._parameters(block), versions)

    def _parameters(self, block: Block) -> dict[str, torch.Tensor]:
        """By their names, of a block; what is no block goes with the head."""
        if block.index < len(self.anatomy.blocks):
            return {f"{block.name}.{n}": p for n, p in block.module.named_parameters()}
        inside = tuple(f"{block.name}." for block in self.anatomy.blocks)
        named = self.anatomy.model.named_parameters()
        return {name: p for name, p in named if not name.startswith(inside)}


def _check_weights(block: Block) -> None:
    """Refuse a block on the device whose weights are not finite.

    Least and greatest of a matrix are NaN where one number is; one answer is waited for.
    """
    weights = [site.module.weight for site in block.sites if site.module.weight.numel()]
    extremes = [extreme for weight in weights for extreme in weight.detach().aminmax()]
    if not extremes or torch.stack(extremes).isfinite().all():
        return
    wrong = next(s for s in block.sites if not s.module.weight.isfinite().all())
    raise ValueError(
        f"{wrong.weight_name} holds NaN or infinite values; the checkpoint is damaged or was saved "
        "from a diverged run. No plan is made of it. In memory, blocks before it may be pruned."
    )


def copies_ahead(device: torch.device) -> bool:
    """Whether copying to a device goes on beside what it computes."""
    return device.type == "cuda"


def placement_of(anatomy: Anatomy, device: torch.device) -> Placement:
    """Where a model's weights are, as it was loaded.

    Args:
        anatomy: of the model.
        device: where blocks are to run.
    """
    files = files_of(anatomy.model)
    return InMemory(anatomy, device) if files is None else Mapped(anatomy, device, files)


@contextmanager
def replaced_forward(
    modules: Iterable[nn.Module], forward: Callable[[int], Callable[..., Any]]
) -> Iterator[None]:
    """Run `forward(i)` in place of the i-th module's own forward, inside the block."""
    modules = list(modules)
    # Others (accelerate, for one) replace forwards too, and want theirs back.
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for i, module in enumerate(modules):
            module.forward = forward(i)
        yield
    finally:
        for module, replaced in zip(modules, before, strict=True):
            module.__dict__.pop("forward", None)
            if replaced is not None:
                module.forward = replaced


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block; every module then gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
