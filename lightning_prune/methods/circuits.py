"""The family of methods that take out what a behaviour is due to.

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.attribution.attributions import Attributions, Contrast, contrast
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.methods.base import Decision, Method, Scores
from lightning_prune.repair import Repair

__all__ = ["CircuitPruning"]


class CircuitPruning(Method):
    """Methods that remove so many parts of a model, wherever they are.

    Args:
        general: attributions over samples of what the model is to keep, or their file.
        undesired: attributions over samples of what it is to lose, of the same parts, or their
            file.
        count: how many parts go: those whose general less undesired attribution is lowest.
        units: a list of what goes, or its file, in place of these three: as
            `lightning-prune circuit` writes it, or written by hand. With `count`: its first ones.
        contrast: "difference" of the two; "normalised": each divided by the sum of its magnitudes
            before, so that the set with the larger logits does not rule.
        cut: cut the units off, so that the model gets smaller; else they are masked, which can be
            taken back (`plan.restore`) or weakened (`plan.set_strength`).
        repair: what is done about what was cut, with calibration text; None: nothing.

    Raises:
        ValueError: both or neither of attributions and units are given, or an argument is out of
            range.
    """

    undoable = True

    general: Attributions | str | Path | None = None
    undesired: Attributions | str | Path | None = None
    count: int | None = None
    units: CircuitUnits | str | Path | None = None
    contrast: Contrast = "difference"
    cut: bool = False
    repair: Repair | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = (self.general is not None) + (self.undesired is not None)
        if self.plan is None and (pair, self.units is None) not in ((2, True), (0, False)):
            raise ValueError(
                f"{type(self).__name__} takes general=…, undesired=… and count=100, or units=…, "
                f"or plan=…; got {self!r}"
            )
        if self.plan is None and self.units is None:
            self.require("count", self.count is not None, "it is how many parts go, 1 or more")
        whole = self.count is None or (isinstance(self.count, int) and self.count >= 1)
        self.require("count", whole, "it is how many parts go, 1 or more")
        self.require(
            "repair",
            self.cut or self.repair is None,
            "units that are masked stay as they were; repairs go with cut=True",
        )

    @property
    def cuts(self) -> bool:  # type: ignore[override]
        """Whether it takes units out of the model."""
        return self.cut

    @property
    def effective_repair(self) -> Repair | None:
        """The repair given."""
        return self.repair

    @cached_property
    def ranked(self) -> Attributions | None:
        """General less undesired; None where a list is given.

        Raises:
            FileNotFoundError: there are no such files.
            ValueError: they are damaged, or not of the same parts.
        """
        if self.units is not None:
            return None
        assert self.general is not None
        assert self.undesired is not None
        return contrast(_loaded(self.general), _loaded(self.undesired), self.contrast)

    @cached_property
    def circuit(self) -> CircuitUnits:
        """What goes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: there are not so many parts, or the file is damaged.
        """
        if self.ranked is not None:
            return CircuitUnits.lowest(self.ranked, self.count or 0)
        listed = self.units
        if isinstance(listed, (str, Path)):
            listed = CircuitUnits.load(listed)
        assert listed is not None
        if self.count is not None and self.count > len(listed):
            raise ValueError(f"count={self.count}, and the list has {len(listed)} members")
        return listed if self.count is None else listed.first(self.count)

    # --- what is refused ---

    def check(self, anatomy: Anatomy) -> None:
        """Refuse parts that the model does not have, and to leave a block none."""
        super().check(anatomy)
        blocks, circuit = self.blocks(anatomy), self.circuit
        self.require(
            "cut", not self.cut or circuit.kind != "weight", "single weights cannot be cut off"
        )
        sizes = _sizes(blocks, circuit.kind)
        places = circuit.by_name()
        for name, members in places.items():
            for place in members:
                if (
                    name not in sizes
                    or len(place) != len(sizes[name])
                    or not all(
                        0 <= index < size for index, size in zip(place, sizes[name], strict=True)
                    )
                ):
                    shape = sizes.get(name)
                    has = f"of shape {shape}" if shape else "not among those that are pruned"
                    raise ValueError(
                        f"the circuit has the {circuit.kind} {list(place)} in {name!r}, which is "
                        f"{has}: it was made for another model, or for this one before it was cut"
                    )
            if circuit.kind != "weight" and len(set(members)) == sizes[name][0]:
                raise ValueError(
                    f"the circuit takes all {len(members)} {circuit.kind}s of block {name}; one "
                    "must stay. Ask for a lower count."
                )

    def budget(self, anatomy: Anatomy) -> float:
        """The fraction of the weights of the chosen blocks that goes."""
        blocks, circuit = self.blocks(anatomy), self.circuit
        by_index = {str(block.index): block for block in blocks}
        total = sum(self.size(block) for block in blocks)
        if circuit.kind == "weight":
            return len(circuit) / total
        gone = (by_index[name].unit_size(circuit.kind) for name, *_ in circuit.members)
        return sum(gone) / total

    # --- what is decided ---

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What the block's parts were ranked by; nothing where a list is given."""
        if self.ranked is None:
            return {}
        values, kind = self.ranked.values, self.ranked.kind
        if kind == "weight":
            names = [site.weight_name for site in block.sites if site.weight_name in values]
            return {name: values[name] for name in names}
        return {kind: values[str(block.index)]} if str(block.index) in values else {}

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Those of the circuit that are in the block."""
        places = self.circuit.by_name()
        if self.circuit.kind == "weight":
            masks = {}
            for site in block.sites:
                if site.weight_name in places:
                    keep_OI = torch.ones(site.module.weight.shape, dtype=torch.bool)
                    keep_OI[tuple(torch.tensor(places[site.weight_name]).T)] = False
                    masks[site.weight_name] = keep_OI
            return Decision(masks)
        if str(block.index) not in places:
            return Decision()
        gone_U = torch.tensor(places[str(block.index)]).flatten()
        keep_U = torch.ones(block.units(self.circuit.kind), dtype=torch.bool)
        keep_U[gone_U] = False
        if self.cut:
            return Decision(kept={self.circuit.kind: keep_U.nonzero().flatten()})
        reader = block.reader(self.circuit.kind)
        keep_OI = torch.ones(reader.site.module.weight.shape, dtype=torch.bool)
        keep_OI[:, reader.features((~keep_U).nonzero().flatten())] = False
        return Decision({reader.site.weight_name: keep_OI})

    def decide(
        self,
        blocks: Sequence[Block],
        scores: Scores,
        shares: Mapping[int, float],
        budget: float,
    ) -> dict[int, Decision]:
        """The circuit, block by block."""
        return {block.index: self.select(block, scores[block.index], 0.0) for block in blocks}


def _loaded(given: Attributions | str | Path) -> Attributions:
    return given if isinstance(given, Attributions) else Attributions.load(given)


def _sizes(blocks: Sequence[Block], kind: str) -> dict[str, tuple[int, ...]]:
    """How many units each block has, or the shape of each weight."""
    if kind == "weight":
        return {s.weight_name: tuple(s.module.weight.shape) for b in blocks for s in b.sites}
    return {str(block.index): (block.units(kind),) for block in blocks}
