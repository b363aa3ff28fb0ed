"""The calibration set on its way through the model: hidden states and the blocks' arguments.

Axes: B sequences, T tokens, C some of their columns, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence.objective import Labels
from lightning_prune.sweep.placement import home_device, move, on_device, replaced_forward

__all__ = ["HiddenStates", "labels_of"]

MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")

LOGITS = 2**26
"""How many logits are held at once where only losses are asked for: 256 MiB in fp32."""


class HiddenStates:
    """The hidden states of every batch, in front of one block after another.

    Made by running the model once with its blocks switched off: that gives the embeddings, and the
    arguments (masks, rotary tables) that the model itself hands to each block, which may differ
    from block to block (sliding and full attention).

    Args:
        anatomy: of the model.
        batches: dicts with `input_ids` (B, T) and optional `attention_mask` (1 = token).
        device: where blocks run.
        offload: keep the hidden states on the CPU between blocks, not on `device`.

    Raises:
        ValueError: a batch is not of that form.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        batches: Iterable[Mapping[str, torch.Tensor]],
        device: torch.device,
        offload: bool = False,
    ) -> None:
        self.anatomy = anatomy
        self.device = device
        self.offload = offload
        self.store = torch.device("cpu") if offload else device
        self.batches = [_checked(batch) for batch in batches]
        self.hidden: list[torch.Tensor] = []
        self._calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = []
        with torch.no_grad():
            for batch in self.batches:
                self._capture(batch)

    def _capture(self, batch: Mapping[str, torch.Tensor]) -> None:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        embedded: list[torch.Tensor] = []

        def forward(index: int) -> Callable[..., torch.Tensor]:
            def record(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
                if index == 0:
                    embedded.append(hidden)
                calls.append((args, kwargs))
                return hidden

            return record

        with replaced_forward((b.module for b in self.anatomy.blocks), forward):
            self.anatomy.decoder(**_model_inputs(batch, self.anatomy), use_cache=False)
        self.hidden.append(embedded[0].to(self.store))
        shared = _Shared(self.device, self._calls[-1] if self._calls else None)
        self._calls.append([shared.call(i, *call) for i, call in enumerate(calls)])

    def keep(self, index: int) -> torch.Tensor | None:
        """Which tokens of a batch count, (B, T) bool on the device; None if all do."""
        keep_BT = _counts(self.batches[index])
        return None if bool(keep_BT.all()) else keep_BT.to(self.device)

    def modules(self, block: Block) -> list[nn.Module]:
        """What has to be on the device while a block runs."""
        return self.anatomy.outside if self._is_head(block) else [block.module]

    def _is_head(self, block: Block) -> bool:
        return block.index == len(self.anatomy.blocks)

    def run(self, block: Block, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """A block's output for one batch; the head's are the logits."""
        if self._is_head(block):
            return self.logits(index, hidden)
        args, kwargs = self._calls[index][block.index]
        output = block.module(hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    @torch.no_grad()
    def advance(self, block: Block, states: list[torch.Tensor] | None = None) -> None:
        """Replace every batch's hidden states, or those given, by the block's output."""
        states = self.hidden if states is None else states
        for i, hidden in enumerate(states):
            states[i] = self.run(block, i, hidden.to(self.device)).to(self.store)

    def logits(
        self, index: int, hidden: torch.Tensor, columns_C: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the model makes of the last block's output: final norm and head. (B, T, V).

        Args:
            index: of the batch.
            hidden: the last block's output, (B, T, D), or (B, C, D) for the columns given.
            columns_C: which tokens these are; None: all. Norm and head see each token for itself.
        """

        def forward(_: int) -> Callable[..., torch.Tensor]:
            return lambda *args, **kwargs: hidden

        inputs = _model_inputs(self.batches[index], self.anatomy)
        if columns_C is not None:
            ids_BT = inputs["input_ids"]
            inputs = {"input_ids": ids_BT[:, columns_C.to(ids_BT.device)]}
        with replaced_forward((b.module for b in self.anatomy.blocks), forward):
            return self.anatomy.model(**inputs, use_cache=False).logits

    def losses(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Negative log likelihood of every next token, (B, T - 1), fp32; 0 where none is asked.

        The head sees some tokens at a time, so that the logits of all are never there at once.
        """
        target_BT = self.targets(index)
        loss_BT = torch.zeros(target_BT.shape, device=hidden.device)
        for columns_C, target_BC in self._columns(target_BT):
            part_BCD = hidden[:, columns_C.to(hidden.device)]
            loss_BC = self._loss(index, columns_C, part_BCD, target_BC)
            loss_BT[:, columns_C.to(loss_BT.device)] = loss_BC.to(loss_BT.device)
        return loss_BT[:, :-1]

    def loss_gradient(
        self, index: int, hidden: torch.Tensor, labels: Labels = "all"
    ) -> torch.Tensor:
        """The gradient of a batch's summed loss with respect to the last block's output.

        Not of the mean: divided by a hundred thousand tokens it would vanish in float16. The head
        runs forward and backward on some tokens before it sees the next ones.
        """
        gradient_BTD = torch.zeros_like(hidden)
        for columns_C, target_BC in self._columns(self.targets(index, labels)):
            here_C = columns_C.to(hidden.device)
            part_BCD = hidden[:, here_C].detach().requires_grad_()
            with torch.enable_grad():
                loss = self._loss(index, columns_C, part_BCD, target_BC).sum()
            gradient_BTD[:, here_C] = torch.autograd.grad(loss, part_BCD)[0]
        return gradient_BTD

    def targets(self, index: int, labels: Labels = "all") -> torch.Tensor:
        """What the logits at each token are to say, (B, T); -100 where nothing is asked.

        Args:
            index: of the batch.
            labels: "all": the next token; "reference": nothing but the last token of each
                sequence, at its own place.
        """
        batch = self.batches[index]
        if labels == "all":
            return nn.functional.pad(labels_of(batch)[:, 1:], (0, 1), value=-100)
        keep_BT = _counts(batch)
        behind_BT = keep_BT.flip(1).cumsum(dim=1).flip(1)
        return batch["input_ids"].masked_fill(~keep_BT | (behind_BT != 1), -100)

    def _columns(self, target_BT: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The columns that ask for something, as many at a time as `LOGITS` allows."""
        vocabulary = self.anatomy.head.sites[0].module.out_features
        at_once = max(1, LOGITS // (len(target_BT) * vocabulary))
        asked = (target_BT != -100).any(dim=0).nonzero().flatten()
        for columns_C in asked.split(at_once) if len(asked) else ():
            yield columns_C, target_BT[:, columns_C]

    def _loss(
        self, index: int, columns_C: torch.Tensor, part_BCD: torch.Tensor, target_BC: torch.Tensor
    ) -> torch.Tensor:
        logits_BCV = self.logits(index, part_BCD, columns_C)
        target = target_BC.to(logits_BCV.device).flatten()
        loss = nn.functional.cross_entropy(
            logits_BCV.flatten(0, 1).float(), target, reduction="none"
        )
        return loss.view(target_BC.shape)

    def counted(self) -> int:
        """Number of tokens that are neither padding nor ignored."""
        return sum(int(_counts(batch).sum()) for batch in self.batches)

    def predicted(self) -> int:
        """Number of next tokens that the batches ask for."""
        return sum(int((labels_of(batch)[:, 1:] != -100).sum()) for batch in self.batches)

    def rewind(self, hidden: list[torch.Tensor]) -> None:
        """Stand where the hidden states were these."""
        self.hidden = list(hidden)

    def outside_on_device(self) -> Any:
        """Context in which embeddings, final norm and head are on the device."""
        return on_device(self.anatomy.outside, self.device)


def _checked(batch: Any) -> dict[str, torch.Tensor]:
    """A batch as a dict, if it is one that a model can read."""
    ids_BT = batch.get("input_ids") if isinstance(batch, Mapping) else batch
    if not isinstance(batch, Mapping) or not isinstance(ids_BT, torch.Tensor):
        raise ValueError(
            "a batch is a dict with input_ids, a tensor of shape (B, T), and optional "
            f"attention_mask; got {type(batch).__name__}"
            + (f" with {sorted(batch)}" if isinstance(batch, Mapping) else "")
        )
    if ids_BT.ndim != 2 or ids_BT.numel() == 0:
        raise ValueError(f"input_ids must be of shape (B, T), B, T > 0; got {tuple(ids_BT.shape)}")
    return dict(batch)


def _counts(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which tokens count in statistics, (B, T): not padding, and not ignored by the labels."""
    keep_BT = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    if "attention_mask" in batch:
        keep_BT &= batch["attention_mask"] != 0
    if "labels" in batch:
        keep_BT &= batch["labels"] != -100
    return keep_BT


def labels_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A batch's labels, or its tokens if it has none; -100 at padding and right behind it.

    What a model says at a padded place is no prediction of the first token of a sequence.
    """
    labels_BT = batch.get("labels", batch["input_ids"])
    if "attention_mask" in batch:
        padding_BT = batch["attention_mask"] == 0
        behind_BT = nn.functional.pad(padding_BT[:, :-1], (1, 0))
        labels_BT = labels_BT.masked_fill(padding_BT | behind_BT, -100)
    return labels_BT


def _model_inputs(batch: Mapping[str, torch.Tensor], anatomy: Anatomy) -> dict[str, torch.Tensor]:
    home = home_device(anatomy.decoder.get_input_embeddings())  # type: ignore[operator]
    return {name: batch[name].to(home) for name in MODEL_INPUTS if name in batch}


class _Shared:
    """Moves block arguments to the device once for all blocks that share them.

    Those that equal the previous batch's are reused, so that masks and rotary tables are held once.
    """

    def __init__(
        self, device: torch.device, previous: list[tuple[tuple[Any, ...], dict[str, Any]]] | None
    ) -> None:
        self._device = device
        self._previous = previous
        self._moved: dict[int, tuple[Any, Any]] = {}

    def call(
        self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        before = self._previous[index] if self._previous else ((None,) * len(args), {})
        return (
            tuple(self._one(a, b) for a, b in zip(args, before[0], strict=True)),
            {name: self._one(value, before[1].get(name)) for name, value in kwargs.items()},
        )

    def _one(self, value: Any, before: Any) -> Any:
        if id(value) not in self._moved:
            moved = move(value, self._device)
            # The original is held too, so that its id stays its own.
            self._moved[id(value)] = (value, before if _equal(moved, before) else moved)
        return self._moved[id(value)][1]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return False
