"""How much memory a batch, and evidence, take in a block: run on the meta device, without numbers.

What is run is the code that runs later, so a family, a kind of attention and a kind of evidence of
one's own count as what they do. Nothing of the size of the model is ever there.

Axes: B sequences, T tokens, O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence import InputEvidence, PairedEvidence, WeightEvidence
from lightning_prune.sweep.around import Around, rows_of
from lightning_prune.sweep.listening import listening
from lightning_prune.sweep.live import Fused, LiveBytes

__all__ = ["BlockRun", "EvidenceBytes", "Rehearsal", "Shapes"]

META = torch.device("meta")


class EvidenceBytes(NamedTuple):
    """What the evidence of one input takes, in bytes.

    Attributes:
        sums: between two batches.
        update: while a batch is added, beyond the sums.
        finish: while the result is made, beyond the sums.
        result: of the result.
        sent: of what is added up over processes.
    """

    sums: int
    update: int
    finish: int
    result: int
    sent: int


@dataclass(frozen=True)
class BlockRun:
    """What one batch takes in one block, in bytes.

    Attributes:
        hidden: its hidden states.
        forward: at most while it runs, its output with it.
        waiting: held while it waits at an input, by the name of the input.
        kept: for the pass back.
    """

    hidden: int
    forward: int
    waiting: Mapping[str, int]
    kept: int


@dataclass
class Rehearsal:
    """One batch on its way through a model on the meta device.

    Attributes:
        hidden: what enters the first block.
        arguments: bytes of masks and tables that the model hands to its blocks.

    Args:
        anatomy: of a model on the meta device.
        batch: what the model's forward takes, on the meta device.
    """

    anatomy: Anatomy
    batch: Mapping[str, torch.Tensor]
    hidden: torch.Tensor = field(init=False)
    _entering: list[torch.Tensor] = field(init=False)
    arguments: int = field(init=False)
    _calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(init=False)
    _known: dict[Any, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        with torch.no_grad(), LiveBytes(), Fused():
            entered = Around(self.anatomy).enter(self.batch)
        self._calls, self._entering = entered.calls, [h.detach() for h in entered.hidden]
        self.hidden = self._entering[0]
        self.arguments = _bytes_of([self._calls])

    def run(self, block: Block) -> BlockRun:
        """What the batch takes in a block."""
        key = signature(block)
        if key not in self._known:
            self._known[key] = self._run(block)
        return self._known[key]

    def evidence(self, kind: InputEvidence, width: int, adds: int = 0) -> EvidenceBytes:
        """What evidence takes at an input of so many features.

        Args:
            kind: of evidence.
            width: input features.
            adds: features of the residual stream that the Linear behind the input adds to.
        """
        key = repr(kind), width, adds
        if key not in self._known:
            self._known[key] = self._evidence(kind, width, adds)
        return self._known[key]

    def backward(self, block: Block, evidence: WeightEvidence) -> tuple[int, int]:
        """What the pass back through a block takes at most, its sums too, and what these take."""
        key = signature(block), repr(evidence)
        if key not in self._known:
            self._known[key] = self._backward(block, evidence)
        return self._known[key]

    def _run(self, block: Block) -> BlockRun:
        if block.index >= len(self._calls):  # the head
            rows, linear = rows_of(self._entering[-1]).numel(), block.sites[0].module
            logits = rows * linear.out_features * self.hidden.element_size()
            return BlockRun(self.hidden.nbytes, logits, {}, logits)
        waiting: dict[str, int] = {}
        with torch.no_grad(), Fused(), LiveBytes() as live, ExitStack() as hooks:
            for name, sites in block.inputs().items():

                def note(*_: Any, name: str = name) -> None:
                    waiting[name] = live.now

                hooks.callback(sites[0].module.register_forward_pre_hook(note).remove)
            hidden = self._entering[block.index]
            _, forward = live.beyond(lambda: self._called(block, hidden))
        with Fused(), LiveBytes() as live:
            held: list[Any] = []

            def hold(_: nn.Module, inputs: Any, __: Any) -> None:
                held.append(inputs[0])

            for site in block.sites:
                hooks.callback(site.module.register_forward_hook(hold).remove)
            with hooks:
                output = self._called(block, hidden.detach().requires_grad_())
            kept = live.now
            del output
            held.clear()
        return BlockRun(hidden.nbytes, forward, waiting, kept)

    def _backward(self, block: Block, evidence: WeightEvidence) -> tuple[int, int]:
        with Fused(), LiveBytes() as live:
            sums = {site.weight_name: evidence.begin(site.module.weight) for site in block.sites}
            held = live.now
            hidden = self._entering[block.index].detach().requires_grad_()
            with evidence.rules(self.anatomy.model), listening([block], sums, None):
                output = self._called(block, hidden)
                torch.autograd.grad(output, hidden, torch.empty_like(output))
        if evidence.objective.begins == "modules":  # at the outputs of all Linears
            tokens = rows_of(hidden).numel()
            outputs = sum(site.module.out_features for site in block.sites)
            return live.peak + 2 * tokens * outputs * self.hidden.element_size(), held
        return live.peak, held

    def _evidence(self, kind: InputEvidence, width: int, adds: int) -> EvidenceBytes:
        shape_BT, dtype = rows_of(self.hidden), self.hidden.dtype
        input_BTI = torch.empty(*shape_BT, width, dtype=dtype, device=META)
        error_BTD = torch.empty(*shape_BT, adds, dtype=dtype, device=META) if adds else None
        with torch.no_grad(), LiveBytes() as live:
            accumulator: Any
            if isinstance(kind, PairedEvidence):
                accumulator = kind.begin(width, META, adds)
                batch = (input_BTI, input_BTI, error_BTD, None)
                add = partial(accumulator.update_pair, *batch)
            else:
                accumulator = kind.begin(width, META)
                add = partial(accumulator.update, input_BTI, None)
            sums, sent = live.now, sum(tensor.nbytes for tensor in accumulator.sums)
            try:
                _, update = live.beyond(add)
                result, finish = live.beyond(accumulator.result)
            except (NotImplementedError, RuntimeError):  # it looks at numbers, and there are none
                return EvidenceBytes(sums, input_BTI.nbytes, sums, sums, sent)
            return EvidenceBytes(sums, update, finish, _bytes_of([result]), sent)

    def _called(self, block: Block, hidden: torch.Tensor) -> torch.Tensor:
        args, kwargs = self._calls[block.index]
        output = block.module(hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output


class Shapes(Rehearsal):
    """Nothing is run: what is certain to be held, told from shapes. The rest counts nothing.

    Args:
        anatomy: of a model, wherever its weights are.
        hidden: of the shape of one token's hidden states, on the meta device.
    """

    def __init__(self, anatomy: Anatomy, hidden: torch.Tensor) -> None:
        self.anatomy, self.hidden, self.arguments = anatomy, hidden, 0
        self._known = {}

    def run(self, block: Block) -> BlockRun:
        """No memory at all: nothing is known of activations where shapes alone are."""
        return BlockRun(0, 0, {}, 0)

    def backward(self, block: Block, evidence: WeightEvidence) -> tuple[int, int]:
        """The sums."""
        sums = 8 * evidence.floats * sum(site.module.weight.numel() for site in block.sites)
        return sums, sums

    def _evidence(self, kind: InputEvidence, width: int, adds: int) -> EvidenceBytes:
        size = super()._evidence(kind, width, adds)
        return EvidenceBytes(size.sums, 0, 0, 0, size.sent)


def signature(block: Block) -> Any:
    """What is alike in blocks that take the same memory."""
    return tuple((site.table.path, tuple(site.module.weight.shape)) for site in block.sites)


def _bytes_of(values: Sequence[Any]) -> int:
    """Of the tensors in nested values, each counted once."""
    sizes: dict[int, int] = {}
    stack = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            storage = value.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()
        elif isinstance(value, Mapping):
            stack += value.values()
        elif isinstance(value, (tuple, list)):
            stack += value
    return sum(sizes.values())
