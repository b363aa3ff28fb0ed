"""Below which magnitude activations are left out: thresholds at the inputs of Linears.

An activation x is kept where |x| > threshold, and the column of the weight that it is multiplied by
is read then alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning_prune.evidence.input_magnitudes import Magnitudes
from lightning_prune.files import write_json

__all__ = ["Measured", "Scope", "Thresholds", "thresholds_at"]

Scope = Literal["site", "projection", "model"]


class Measured(NamedTuple):
    """One input of a block.

    Attributes:
        reads: its name, the same in every block.
        sites: the Linears that read it, and how many output features each has.
        magnitudes: of its numbers.
    """

    reads: str
    sites: Mapping[str, int]
    magnitudes: Magnitudes


@dataclass(frozen=True)
class Thresholds:
    """Thresholds at the inputs of Linears, and what they leave out.

    Attributes:
        sparsity: fraction of the activations that was to be left out.
        model: that they were measured on.
        tokens: of calibration text.
        thresholds: by the name of a Linear, as in "model.layers.0.mlp.down_proj".
        scope: over what the fraction is reached: each "site" by itself, each "projection" over all
            blocks, or the "model".
        reached: the fraction that is left out of the calibration text, by Linear.
        widths: input features, by Linear, by which another model is told; those that are missing
            are not compared.
    """

    sparsity: float
    model: str
    tokens: int
    thresholds: Mapping[str, float]
    scope: Scope
    reached: Mapping[str, float]
    widths: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: dict(v) if isinstance(v, Mapping) else v for name, v in vars(self).items()}

    def write(self, path: str | Path) -> None:
        """Write it as JSON, atomically.

        Raises:
            OSError: it cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: str | Path) -> Thresholds:
        """Read it from JSON.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no thresholds.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
            thresholds = {str(name): float(t) for name, t in value["thresholds"].items()}
            scope, reached = value.get("scope", "site"), value.get("reached", {})
            widths = {str(name): int(n) for name, n in value.get("widths", {}).items()}
            facts = float(value["sparsity"]), str(value["model"]), int(value["tokens"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} holds no thresholds ({error!r}); lightning-prune analyze activations "
                "writes them"
            ) from error
        return cls(*facts, thresholds, scope, reached, widths)


def thresholds_at(
    inputs: Sequence[Measured], sparsity: float, scope: Scope
) -> tuple[dict[str, float], dict[str, float]]:
    """Thresholds that leave out a fraction of the activations, and what each leaves out.

    Where one is for several inputs, a number counts for as many weights as it is multiplied by, so
    that the fraction is one of multiplications.

    Args:
        inputs: what was measured.
        sparsity: the fraction; at least so many are left out, and no more than ties make needful.
        scope: as of `Thresholds`.
    """
    groups: dict[str, list[Measured]] = {}
    for i, measured in enumerate(inputs):
        key = {"site": str(i), "projection": measured.reads, "model": ""}[scope]
        groups.setdefault(key, []).append(measured)
    thresholds: dict[str, float] = {}
    reached: dict[str, float] = {}
    for group in groups.values():
        weights = [sum(measured.sites.values()) for measured in group]
        every = Magnitudes.together([measured.magnitudes for measured in group], weights)
        threshold = every.quantile(sparsity)
        for measured in group:
            share = measured.magnitudes.share(threshold)
            thresholds |= dict.fromkeys(measured.sites, threshold)
            reached |= dict.fromkeys(measured.sites, share)
    order = [name for measured in inputs for name in measured.sites]
    return {name: thresholds[name] for name in order}, {name: reached[name] for name in order}
