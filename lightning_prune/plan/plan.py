"""The decisions of a pruning run as a value: saved, read, drawn and applied apart from the model.

A plan says which weights stay (masks) and which units stay (MLP neurons, GQA groups), never what
the weights are. It is saved as `plan.json`, which a person can read, and `plan.safetensors`.

Axes: O output features, I input features, U units of one block, P packed bytes, R entries of one
weight that are removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from lightning_prune.digests import digests
from lightning_prune.plan import file as plan_file
from lightning_prune.plan.numbering import Kept
from lightning_prune.plan.undo import set_strength

__all__ = ["Plan"]


@dataclass(eq=False)
class Plan:
    """What stays.

    Attributes:
        provenance: where the plan comes from: model, method and its arguments, calibration,
            library versions. Only strings, numbers, lists and dicts.
        corrected: the weights whose remaining values the method changed too, by name, each with a
            hash of what it became. Saved with its model, a plan has those weights beside it;
            without, it cannot be applied again.
        weights_file: where they are; None: they were not saved.
    """

    provenance: dict[str, Any] = field(default_factory=dict)
    corrected: dict[str, str] = field(default_factory=dict)
    weights_file: Path | None = None
    _masks: dict[str, tuple[torch.Tensor, torch.Size]] = field(default_factory=dict, repr=False)
    _kept: dict[str, dict[int, Kept]] = field(default_factory=dict, repr=False)
    _scores: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict, repr=False)
    _removed: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    # --- weights ---

    @property
    def mask_names(self) -> list[str]:
        """Names of the weights that have a mask, as in the model's state dict."""
        return list(self._masks)

    def set_mask(self, name: str, keep_OI: torch.Tensor) -> None:
        """Decide which entries of a weight stay (True = kept). Stored as bits, on the CPU."""
        self._masks[name] = (plan_file.pack(keep_OI), keep_OI.shape)

    def mask(self, name: str) -> torch.Tensor:
        """The mask of the weight `name`: a bool tensor of the weight's shape, True = kept.

        Raises:
            KeyError: the plan has no mask of that name.
        """
        if name not in self._masks:
            raise KeyError(f"the plan has no mask {name!r}; it has {_some(self.mask_names)}")
        return plan_file.unpack(*self._masks[name])

    def mask_shape(self, name: str) -> torch.Size:
        """The shape of a mask."""
        return self._masks[name][1]

    def sparsity(self, name: str | None = None) -> float:
        """Fraction of zeros that the masks make: in one weight, or in all that have a mask."""
        names = self.mask_names if name is None else [name]
        kept = sum(int(self.mask(n).sum()) for n in names)
        total = sum(self.mask_shape(n).numel() for n in names)
        return 1 - kept / total if total else 0.0

    # --- taking masks back ---

    def set_removed(self, name: str, weight_OI: torch.Tensor) -> None:
        """Keep the values that a weight has where its mask will remove them."""
        self._removed[name] = _copied(weight_OI[~self.mask(name).to(weight_OI.device)])

    def restore(self, model: nn.Module) -> None:
        """Give the weights that the masks removed the values that they had, in place.

        Raises:
            ValueError: as `set_strength`.
        """
        self.set_strength(model, 0.0)

    def set_strength(self, model: nn.Module, strength: float) -> None:
        """Remove only a part of what the masks remove, in place; as often as is liked.

        Args:
            model: that the plan was applied to, without adapters.
            strength: 0: nothing is removed, 0.5: values are half of what they were, 1: zeros.

        Raises:
            ValueError: no such strength, the plan has not kept what it removed (a `Circuit` that is
                not cut does), or the model is another one; nothing was changed then.
        """
        removed = {} if self._kept else self._removed
        masks = {name: self.mask(name) for name in self._masks}
        set_strength(model, strength, masks, removed, self.provenance.get("method", "a user"))

    # --- units ---

    @property
    def kinds(self) -> list[str]:
        """The kinds of units that the plan decides on ("neuron", "group")."""
        return list(self._kept)

    def blocks(self, kind: str) -> dict[int, Kept]:
        """What each decided block keeps of a kind, by block index."""
        return dict(self._kept.get(kind, {}))

    def set_kept(self, kind: str, block: int, index_U: torch.Tensor, total: int) -> None:
        """Decide that the units `index_U` (sorted) of `total` stay in a block."""
        self._kept.setdefault(kind, {})[block] = Kept(_copied(index_U).long(), total)

    def kept(self, kind: str, block: int) -> torch.Tensor:
        """Sorted indices of the units of a kind ("neuron" or "group") that a block keeps.

        Raises:
            KeyError: the plan decides nothing about that kind in that block.
        """
        if block not in self._kept.get(kind, {}):
            have = {k: sorted(v) for k, v in self._kept.items()}
            raise KeyError(f"the plan keeps no {kind!r} list for block {block}; it has {have}")
        return self._kept[kind][block].index_U

    @property
    def dropped(self) -> set[int]:
        """Indices of the blocks that are taken out as a whole."""
        return {index for index, kept in self._kept.get("block", {}).items() if kept.removed}

    @property
    def removes_anything(self) -> bool:
        """Whether applying the plan would change a model."""
        units = sum(kept.removed for blocks in self._kept.values() for kept in blocks.values())
        return units > 0 or any(not self.mask(name).all() for name in self._masks)

    # --- what it says of itself ---

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The provenance of every plan that this one consists of, in the order of their use."""
        return self.provenance.get("steps", [self.provenance])

    def fingerprint(self) -> str:
        """A hash of what is decided; where a plan comes from, and its scores, do not count."""
        digest = hashlib.sha256(repr(sorted(self.corrected.items())).encode())
        for name, (bits_P, shape) in sorted(self._masks.items()):
            digest.update(f"mask {name} {tuple(shape)} ".encode() + bits_P.numpy().tobytes())
        for kind, blocks in sorted(self._kept.items()):
            for block, kept in sorted(blocks.items()):
                digest.update(f"{kind} {block} {kept.total} ".encode())
                digest.update(kept.index_U.numpy().tobytes())
        return digest.hexdigest()

    # --- scores ---

    @property
    def has_scores(self) -> bool:
        """Whether scores were kept."""
        return bool(self._scores)

    @property
    def score_keys(self) -> list[tuple[str, str]]:
        """Kind and key of all scores that were kept, as `scores` takes them."""
        return list(self._scores)

    def set_scores(self, kind: str, key: str | int, scores: torch.Tensor) -> None:
        """Keep the scores that a decision was made from, on the CPU."""
        self._scores[kind, str(key)] = _copied(scores)

    def scores(self, kind: str, key: str | int) -> torch.Tensor:
        """Scores before selection.

        Args:
            kind: "neuron" or "group" for one float a unit, "weight" for one a weight.
            key: the block's index, or the weight's name.

        Raises:
            KeyError: no such scores; a method keeps them only if made with `keep_scores=True`.
        """
        if (kind, str(key)) not in self._scores:
            have = [f"{k} {name}" for k, name in self._scores]
            raise KeyError(
                f"the plan has no {kind} scores for {key!r}; it has {_some(have)}. "
                "Make the method with keep_scores=True."
            )
        return self._scores[kind, str(key)]

    # --- corrected weights ---

    def set_corrected(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Note what weights, or biases, became, by their names; the values stay in the model."""
        self.corrected |= dict(zip(weights, digests(weights.values()), strict=True))

    def check_weights_file(self) -> None:
        """Refuse a plan with corrected weights that are nowhere.

        Raises:
            ValueError: it was saved without its model.
        """
        if self.corrected and self.weights_file is None:
            raise ValueError(
                "the method that made this plan also corrected the weights that stay, and the plan "
                "is without them. If it lies in a model's folder, load that model: its weights are "
                "the corrected ones. Or save the plan with plan.save(folder, model) first."
            )

    def corrected_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each corrected weight by its name, read from the file one at a time.

        Raises:
            ValueError: the plan was saved without its model, so that they are nowhere.
        """
        if not self.corrected:
            return
        self.check_weights_file()
        assert self.weights_file is not None
        with safe_open(self.weights_file, "pt") as file:
            for name in self.corrected:
                yield name, file.get_tensor(name)

    # --- on disk ---

    def save(self, folder: str | Path, model: nn.Module | None = None) -> Path:
        """Write `plan.safetensors`, and `plan.json` with its checksum, into `folder`.

        A plan that is there already is replaced when all is written, or else left as it was.

        Args:
            folder: made if it is not there.
            model: the pruned model; weights that the method corrected are saved from it, so that
                the plan can be applied again.
        """
        folder = Path(folder)
        head = {
            "provenance": self.provenance,
            "masks": {name: list(shape) for name, (_, shape) in self._masks.items()},
            "units": {
                kind: {str(i): kept.total for i, kept in blocks.items()}
                for kind, blocks in self._kept.items()
            },
            "corrected": self.corrected,
        }
        tensors = {f"mask/{name}": bits_P for name, (bits_P, _) in self._masks.items()}
        for kind, blocks in self._kept.items():
            tensors |= {f"kept/{kind}/{i}": kept.index_U for i, kept in blocks.items()}
        for (kind, key), scores in self._scores.items():
            tensors[f"scores/{kind}/{key}"] = scores
        tensors |= {f"removed/{name}": values_R for name, values_R in self._removed.items()}
        state = model.state_dict() if model is not None else {}
        corrected = {name: state[name].contiguous() for name in self.corrected if state}
        plan_file.write(folder, head, tensors, corrected)
        if corrected:
            self.weights_file = folder / plan_file.WEIGHTS
        return folder

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from its folder, or from its `plan.json`.

        Raises:
            FileNotFoundError: there is no plan at `path`.
            ValueError: the plan is damaged, or of a newer format.
        """
        head, tensors, weights_file = plan_file.read(Path(path))
        plan = cls(head["provenance"], head.get("corrected", {}), weights_file)
        for name, sizes in head["masks"].items():
            plan._masks[name] = (tensors[f"mask/{name}"], torch.Size(sizes))
        for kind, totals in head["units"].items():
            for block, total in totals.items():
                plan.set_kept(kind, int(block), tensors[f"kept/{kind}/{block}"], total)
        for name, tensor in tensors.items():
            if name.startswith("scores/"):
                kind, _, key = name.removeprefix("scores/").rpartition("/")
                plan._scores[kind, key] = tensor
            elif name.startswith("removed/"):
                plan._removed[name.removeprefix("removed/")] = tensor
        return plan


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU: parts of one tensor cannot be saved, and others may write into theirs."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more or "none"
