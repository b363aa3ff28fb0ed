"""The family of methods that take out what a behaviour is due to.

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.attribution.attributions import Attributions, Contrast, Kind, contrast
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.digests import fingerprint
from lightning_prune.methods.base import Decision, Method, Scores
from lightning_prune.repair import Repair

__all__ = ["CircuitPruning"]

_log = logging.getLogger(__name__)


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
            before, so that the set with the larger logits does not rule; "guarded": the magnitude
            of the general one less the undesired one, so that nothing goes because it speaks
            strongly against general answers.
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
        whole = self.count is None or (type(self.count) is int and self.count >= 1)
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
    def listed(self) -> CircuitUnits | None:
        """The list given, all of it; None where there are attributions.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged.
        """
        if self.units is None or isinstance(self.units, CircuitUnits):
            return self.units
        return CircuitUnits.load(self.units)

    def circuit(self, blocks: Sequence[Block]) -> CircuitUnits:
        """What goes of these blocks.

        Raises:
            FileNotFoundError: attributions or the list are not there.
            ValueError: they are damaged, or have not so many parts.
        """
        if self.ranked is not None:
            names = _sizes(blocks, self.ranked.kind)
            values = {name: v for name, v in self.ranked.values.items() if name in names}
            chosen = Attributions(self.ranked.kind, values, self.ranked.facts)
            return CircuitUnits.lowest(chosen, self.count or 0)
        assert self.listed is not None
        chosen_units = self.listed.of(_sizes(blocks, self.listed.kind))
        if self.count is not None and self.count > len(chosen_units):
            raise ValueError(
                f"count={self.count}, and the list has {len(chosen_units)} members in the blocks "
                "that are pruned"
            )
        return chosen_units if self.count is None else chosen_units.first(self.count)

    # --- what is refused ---

    def check(self, anatomy: Anatomy) -> None:
        """Refuse parts that the model does not have, and to leave a block none."""
        super().check(anatomy)
        parts = self.ranked if self.ranked is not None else self.listed
        assert parts is not None
        if parts.kind not in get_args(Kind):
            raise ValueError(
                f"the circuit is of kind {parts.kind!r}; it is one of {', '.join(get_args(Kind))}"
            )
        single = parts.kind == "weight"
        self.require("cut", not (self.cut and single), "single weights cannot be cut off")
        self._check_known(_sizes(anatomy.blocks, parts.kind))
        if self.ranked is not None:
            _check_model(self.ranked, anatomy)
        blocks = self.blocks(anatomy)
        sizes, circuit = _sizes(blocks, parts.kind), self.circuit(blocks)
        if not len(circuit):
            raise ValueError(f"{self!r} has no member in the blocks that are pruned")
        for name, members in circuit.by_name().items():
            if self.cut and len(members) == sizes[name][0]:
                raise ValueError(
                    f"the circuit takes all {len(members)} {parts.kind}s of block {name}; where "
                    "they are cut, one must stay. Ask for a lower count, or cut=False."
                )

    def _check_known(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse what was made for another model, whose parts have these sizes."""
        if self.ranked is not None:
            strange = [n for n, v in self.ranked.values.items() if sizes.get(n) != tuple(v.shape)]
            if strange:
                found = tuple(self.ranked.values[strange[0]].shape)
                raise ValueError(
                    f"the attributions have {found} {self.ranked.kind}s in {strange[0]!r}, and the "
                    f"model {sizes.get(strange[0], 'no such place')}: make them of this model"
                )
            return
        assert self.listed is not None
        self._check_listed(self.listed, sizes)
        for name, *place in self.listed.members:
            shape = sizes.get(name, ())
            inside = len(place) == len(shape) and all(
                type(index) is int and 0 <= index < size
                for index, size in zip(place, shape, strict=True)
            )
            if not inside:
                raise ValueError(
                    f"the circuit has the {self.listed.kind} {place} in {name!r}, and the model "
                    f"{'has no such place' if not shape else f'{shape} there'}: it was made for "
                    "another model, or for this one before it was cut"
                )

    def _check_listed(self, listed: CircuitUnits, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse what is listed twice, or was chosen out of another number of units."""
        if len(set(map(tuple, listed.members))) < len(listed):
            raise ValueError("the circuit lists a member twice; take one of them out")
        parts, there = listed.facts.get("parts"), sum(size[0] for size in sizes.values())
        if listed.kind != "weight" and parts is not None and parts != there:
            raise ValueError(
                f"the circuit was chosen out of {parts:,} {listed.kind}s, and the model has "
                f"{there:,}: it was made for another model, or for this one before it was cut. "
                "List Circuit before methods that cut."
            )

    def budget(self, anatomy: Anatomy) -> float:
        """The fraction of the weights of the chosen blocks that goes."""
        blocks = self.blocks(anatomy)
        circuit = self.circuit(blocks)
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
        """All of the circuit at once; see `decide`."""
        raise NotImplementedError("the parts of a circuit are chosen together")

    def decide(
        self,
        blocks: Sequence[Block],
        scores: Scores,
        shares: Mapping[int, float],
        budget: float,
    ) -> dict[int, Decision]:
        """The circuit, block by block."""
        circuit = self.circuit(blocks)
        places = circuit.by_name()
        if circuit.kind == "weight":
            return {b.index: Decision(_weight_masks(b, places)) for b in blocks}
        return {
            b.index: self._of_units(b, circuit.kind, places.get(str(b.index), [])) for b in blocks
        }

    def _of_units(self, block: Block, kind: str, places: Sequence[tuple[int, ...]]) -> Decision:
        if not places:
            return Decision()
        keep_U = torch.ones(block.units(kind), dtype=torch.bool)
        keep_U[torch.tensor(places).flatten()] = False
        if self.cut:
            return Decision(kept={kind: keep_U.nonzero().flatten()})
        reader = block.reader(kind)
        keep_OI = torch.ones(reader.site.module.weight.shape, dtype=torch.bool)
        keep_OI[:, reader.features((~keep_U).nonzero().flatten())] = False
        return Decision({reader.site.weight_name: keep_OI})


def _weight_masks(
    block: Block, places: Mapping[str, Sequence[tuple[int, ...]]]
) -> dict[str, torch.Tensor]:
    masks = {}
    for site in block.sites:
        if site.weight_name in places:
            keep_OI = torch.ones(site.module.weight.shape, dtype=torch.bool)
            keep_OI[tuple(torch.tensor(places[site.weight_name]).T)] = False
            masks[site.weight_name] = keep_OI
    return masks


def _check_model(ranked: Attributions, anatomy: Anatomy) -> None:
    """Refuse attributions of another model of the same shapes."""
    if not ranked.models:
        _log.warning(
            "The attributions do not say of which model they are: that it is this one is taken for "
            "granted."
        )
    elif not _on_meta(anatomy) and ranked.models != {fingerprint(anatomy.model)}:
        raise ValueError(
            "the attributions are of a model of the same shapes, and of other weights (another "
            "model, another dtype, or this one before it was trained or pruned): make them of the "
            "model as it is here, or give a list (units=…), which fits every model of its shapes."
        )


def _on_meta(anatomy: Anatomy) -> bool:
    """Whether there are shapes alone, as where a run is planned."""
    return next(anatomy.model.parameters()).is_meta


def _loaded(given: Attributions | str | Path) -> Attributions:
    return given if isinstance(given, Attributions) else Attributions.load(given)


def _sizes(blocks: Sequence[Block], kind: str) -> dict[str, tuple[int, ...]]:
    """How many units each block has, or the shape of each weight."""
    if kind == "weight":
        return {s.weight_name: tuple(s.module.weight.shape) for b in blocks for s in b.sites}
    return {str(block.index): (block.units(kind),) for block in blocks}
