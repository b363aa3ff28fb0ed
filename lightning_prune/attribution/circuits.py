"""A circuit as a value: the parts of a model that a behaviour is due to, as a list.

Axes: U units of one block, O output features, I input features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_prune.attribution.attributions import Attributions, Kind
from lightning_prune.files import write_json

__all__ = ["CircuitUnits"]

FORMAT = 1


@dataclass(frozen=True, repr=False)
class CircuitUnits:
    """Parts of a model, the most telling first.

    Attributes:
        kind: of what parts.
        members: of units, ("3", 17): the block's index and the number of the unit in it; of
            weights, ("model.layers.3.mlp.up_proj.weight", 17, 4): name, row and column.
        scores: by which they were ranked, one a member; lowest first.
        facts: where they come from, in JSON's types; "parts": out of how many they were chosen.
    """

    kind: Kind
    members: Sequence[tuple[Any, ...]]
    scores: Sequence[float] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def lowest(cls, ranked: Attributions, count: int) -> CircuitUnits:
        """The parts of lowest value.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 < count <= ranked.count:
            raise ValueError(
                f"count={count} of {ranked.count:,} {ranked.kind}s; 1 to {ranked.count:,} can go"
            )
        lowest: list[tuple[float, str, int]] = []
        for name, value in sorted(ranked.values.items()):
            low = value.flatten().topk(min(count, value.numel()), largest=False)
            scores, places = low.values.tolist(), low.indices.tolist()
            lowest += [(s, name, place) for s, place in zip(scores, places, strict=True)]
        lowest = sorted(lowest, key=lambda part: part[0])[:count]
        members = [_member(ranked, name, place) for _, name, place in lowest]
        facts = {**ranked.facts, "parts": ranked.count}
        return cls(ranked.kind, members, [score for score, _, _ in lowest], facts)

    @classmethod
    def random(cls, like: Attributions, count: int, seed: int) -> CircuitUnits:
        """Parts drawn by seed, as a control."""
        generator = torch.Generator().manual_seed(seed)
        values = {
            n: torch.rand(v.shape, generator=generator) for n, v in sorted(like.values.items())
        }
        drawn = cls.lowest(Attributions(like.kind, values), count)
        return cls(like.kind, drawn.members, (), {"drawn_by_seed": seed, "parts": like.count})

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        digest = hashlib.sha256(repr(list(self.members)).encode()).hexdigest()
        return f"CircuitUnits({self.kind!r}, {len(self)} members, {digest[:12]})"

    def of(self, names: Collection[str]) -> CircuitUnits:
        """Those in some blocks, by their indices as texts, or in some weights, by their names."""
        chosen = [i for i, (name, *_) in enumerate(self.members) if name in names]
        scores = [self.scores[i] for i in chosen] if self.scores else ()
        return CircuitUnits(self.kind, [self.members[i] for i in chosen], scores, self.facts)

    def first(self, count: int) -> CircuitUnits:
        """The most telling ones."""
        return CircuitUnits(self.kind, self.members[:count], self.scores[:count], self.facts)

    def by_name(self) -> dict[str, list[tuple[int, ...]]]:
        """The places of the parts in each block, or in each weight."""
        table: dict[str, list[tuple[int, ...]]] = {}
        for name, *place in self.members:
            table.setdefault(name, []).append(tuple(place))
        return table

    def save(self, path: str | Path) -> Path:
        """Write JSON, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        scores: list[float | None] = list(self.scores) or [None] * len(self)
        members = [
            {"in": name, "at": place[0] if len(place) == 1 else place, "score": score}
            for (name, *place), score in zip(self.members, scores, strict=True)
        ]
        head = {"format": FORMAT, "kind": self.kind, "count": len(self)}
        write_json(path, {**head, "facts": dict(self.facts), "members": members})
        return path

    @classmethod
    def load(cls, path: str | Path) -> CircuitUnits:
        """Read what `save` has written, or a person: members with "in" and "at" are enough.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such list.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no circuit at {str(path)!r}; `lightning-prune circuit` writes circuit.json"
            )
        try:
            head = json.loads(path.read_text(encoding="utf-8"))
            newer = head.get("format", FORMAT) > FORMAT
            listed = [] if newer else head["members"]
            members = [
                (str(m["in"]), *(m["at"] if isinstance(m["at"], list) else [m["at"]]))
                for m in listed
            ]
            scores = [m.get("score") for m in listed]
            known = scores if None not in scores else []
            circuit = cls(head["kind"], members, known, head.get("facts", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no list of a circuit ({error!r}). It is JSON as in "
                '{"kind": "neuron", "members": [{"in": "3", "at": 17}]}'
            ) from error
        if newer:
            raise ValueError(
                f"{path} is of format {head['format']}, and this version of lightning_prune reads "
                f"{FORMAT}: update it"
            )
        return circuit


def _member(ranked: Attributions, name: str, place: int) -> tuple[Any, ...]:
    if ranked.kind != "weight":
        return (name, place)
    return (name, *divmod(place, ranked.values[name].shape[1]))
