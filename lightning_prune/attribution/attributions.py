"""Attributions as a value: how much of what a model answers each of its parts stands for.

Axes: U units of one block, O output features, I input features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from lightning_prune.files import save_tensors

__all__ = ["Attributions", "Contrast", "Kind", "contrast"]

Kind = Literal["neuron", "group", "weight"]
"""Of what: MLP neurons, GQA groups, or single weights."""

Contrast = Literal["difference", "normalised", "guarded"]


@dataclass(frozen=True, eq=False)
class Attributions:
    """One number for each part of a model, the mean over reference samples.

    Attributes:
        kind: of what parts.
        values: for units by the block's index, "3" (U,); for weights by their name, (O, I); fp32,
            on the CPU.
        facts: how they were made: by what, of which model, over which samples. In JSON's types.
    """

    kind: Kind
    values: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many parts there are."""
        return sum(value.numel() for value in self.values.values())

    @property
    def models(self) -> set[str]:
        """Hashes of the models that they were made of; none, if that is not said."""
        return _models(self.facts)

    def fingerprint(self) -> str:
        """A hash of the kind, the names and the numbers."""
        digest = hashlib.sha256(self.kind.encode())
        for name, value in sorted(self.values.items()):
            digest.update(f"{name} {tuple(value.shape)} ".encode() + value.numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"kind": self.kind, "facts": json.dumps(dict(self.facts))}
        save_tensors(path, {name: v.contiguous() for name, v in self.values.items()}, facts)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Attributions:
        """Read what `save` has written.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds no attributions.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no attributions at {str(path)!r}; lightning_prune.attribute(…).save(path) and "
                "`lightning-prune circuit` write some"
            )
        try:
            with safe_open(path, "pt") as file:
                facts = file.metadata() or {}
                values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(facts["kind"], values, json.loads(facts["facts"]))
        except (KeyError, ValueError, SafetensorError) as error:
            raise ValueError(
                f"{path} is no file of attributions, or damaged ({error!r}); make it again with "
                "lightning_prune.attribute(…).save(path)"
            ) from error

    @classmethod
    def mean(cls, members: Sequence[Attributions]) -> Attributions:
        """The mean of several, such as those of different seeds, each counted alike.

        Raises:
            ValueError: there are none, or they are not of the same parts.
        """
        if not members:
            raise ValueError("the mean of no attributions is asked for; give one or more")
        for other in members[1:]:
            members[0].check_alike(other)
        values = {
            name: torch.stack([m.values[name].double() for m in members]).mean(dim=0).float()
            for name in members[0].values
        }
        if len(members) == 1:
            return members[0]
        return cls(members[0].kind, values, {"mean_of": [dict(m.facts) for m in members]})

    def check_alike(self, other: Attributions) -> None:
        """Refuse others that are not of the same parts.

        Raises:
            ValueError: they differ in kind, names or shapes.
        """
        here, there = (
            {name: tuple(value.shape) for name, value in one.values.items()}
            for one in (self, other)
        )
        if (self.kind, here) != (other.kind, there):
            raise ValueError(
                f"attributions of {self.kind}s ({_sizes(here)}) and of {other.kind}s "
                f"({_sizes(there)}) do not go together: make both of one model, with the same "
                "kind, include and exclude"
            )

    def __repr__(self) -> str:
        return f"Attributions({self.kind!r}, {self.count:,} values, {self.fingerprint()[:12]})"


def contrast(
    general: Attributions, undesired: Attributions, how: Contrast = "difference"
) -> Attributions:
    """What is least general and most undesired has the lowest value.

    Source: SparC3, arXiv 2506.13727, equation 7: R_general - R_undesired.

    Args:
        general: over samples of what the model is to keep.
        undesired: over samples of what it is to lose.
        how: "difference": as in the paper. "normalised": each is divided by the sum of its
            magnitudes before, so that the set with the larger logits does not rule. "guarded": the
            magnitude of the general one less the undesired one, so that what speaks strongly
            against general answers counts as general too, and not as what is least so.

    Raises:
        ValueError: they are not of the same parts, or the same numbers.
    """
    general.check_alike(undesired)
    if len(general.models | undesired.models) > 1:
        raise ValueError(
            "the general and the undesired attributions are of different models, or of one before "
            "and after its weights were changed: make both of one."
        )
    if general.fingerprint() == undesired.fingerprint():
        raise ValueError(
            "the general and the undesired attributions are the same numbers: there is nothing in "
            "which they differ. Give those of two sets of samples."
        )
    one, other = (_scale(a) if how == "normalised" else 1.0 for a in (general, undesired))
    values = {}
    for name, value in general.values.items():
        kept = value.abs() if how == "guarded" else value
        values[name] = kept / one - undesired.values[name] / other
    facts = {"contrast": how, "general": general.facts, "undesired": undesired.facts}
    return Attributions(general.kind, values, facts)


def _models(facts: Mapping[str, Any]) -> set[str]:
    """Those that the facts name, and those of what it is made of."""
    named = {str(facts["model"])} if facts.get("model") else set()
    parts = [facts[name] for name in ("general", "undesired") if name in facts]
    return named.union(*map(_models, [*facts.get("mean_of", []), *parts]))


def _scale(attributions: Attributions) -> float:
    total = sum(float(value.double().abs().sum()) for value in attributions.values.values())
    return total or 1.0


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    name = next(iter(shapes), None)
    return "none" if name is None else f"{len(shapes)} tensors, {name} {shapes[name]}"
