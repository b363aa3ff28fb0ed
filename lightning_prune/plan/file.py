"""Plans on disk: `plan.json`, which a person can read, and tensors with checksums beside it.

Axes: O output features, I input features, P packed bytes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lightning_prune.files import replacing, sha256, write_json

__all__ = ["WEIGHTS", "pack", "read", "unpack", "write"]

FORMAT = 1
JSON, TENSORS, WEIGHTS = "plan.json", "plan.safetensors", "corrected.safetensors"

_BITS_8 = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def pack(keep_OI: torch.Tensor) -> torch.Tensor:
    """A mask as bits, (P,), on the CPU; on a GPU it is packed before it is moved."""
    flat = keep_OI.flatten()
    if flat.is_cpu:
        return torch.from_numpy(np.packbits(flat.numpy(), bitorder="little"))
    flat = torch.nn.functional.pad(flat.to(torch.uint8), (0, -flat.numel() % 8))
    bits_P = (flat.view(-1, 8) * _BITS_8.to(flat.device)).sum(dim=1, dtype=torch.uint8)
    return bits_P.cpu()


def unpack(bits_P: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The mask of these bits, where they are."""
    flat = (bits_P[:, None] & _BITS_8.to(bits_P.device, non_blocking=True)).flatten().bool()
    return flat[: shape.numel()].view(shape)


def write(
    folder: Path,
    head: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    corrected: dict[str, torch.Tensor],
) -> None:
    """Write `plan.json` with checksums, the tensors, and corrected weights if there are any.

    A plan that is there already is replaced when all is written, or else left as it was.
    """
    head = {"format": FORMAT, **head}
    if corrected:
        with replacing(folder / WEIGHTS, _size(corrected)) as temporary:
            save_file(corrected, temporary)
            head["weights_sha256"] = sha256(temporary)
    with replacing(folder / TENSORS, _size(tensors)) as temporary:
        save_file(tensors, temporary)
        write_json(folder / JSON, head | {"sha256": sha256(temporary)})


def _size(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], Path | None]:
    """What `plan.json` says, the tensors, and where corrected weights are.

    Raises:
        FileNotFoundError: there is no plan at `path`.
        ValueError: the plan is damaged, or of a newer format.
    """
    folder = path.parent if path.name == JSON else path
    for name in (JSON, TENSORS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"no plan at {str(path)!r}: {folder / name} does not exist. A plan is a folder "
                f"with {JSON} and {TENSORS}, as Plan.save writes it."
            )
    try:
        head = json.loads((folder / JSON).read_text(encoding="utf-8"))
        known = head["format"] <= FORMAT
        digest = head.get("weights_sha256")
        intact = known and _matches(folder / TENSORS, head["sha256"])
        intact = intact and (digest is None or _matches(folder / WEIGHTS, digest))
        tensors = load_file(folder / TENSORS) if intact else {}
        if intact:
            _check(head, tensors)
    except (AttributeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"the plan in {folder} is damaged: {error!r}. Prune again.") from error
    if not known:
        raise ValueError(
            f"the plan in {folder} is of format {head['format']}; this version reads up to "
            f"{FORMAT}. Update lightning_prune."
        )
    if not intact:
        raise ValueError(
            f"the tensors in {folder} do not match the checksums in {JSON}: they were truncated or "
            "removed, or belong to another run. Prune again."
        )
    return head, tensors, folder / WEIGHTS if digest else None


def _matches(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _check(head: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Refuse what `Plan.load` could not make sense of."""
    for name, sizes in head["masks"].items():
        if tensors[f"mask/{name}"].numel() != math.ceil(torch.Size(sizes).numel() / 8):
            raise ValueError(f"the mask of {name} cannot be of shape {sizes}")
    for kind, totals in head["units"].items():
        for block in totals:
            _ = tensors[f"kept/{kind}/{int(block)}"]
    _ = dict(head["provenance"])
