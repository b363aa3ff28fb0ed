"""Where hidden states are kept between blocks: on the device, in the CPU's memory, on the disk."""

from __future__ import annotations

import os
import tempfile
from typing import Literal

import torch

from lightning_prune.files import needing_room

__all__ = ["Offload", "stored"]

Offload = bool | Literal["disk"]
"""False: on the device; True: in the CPU's memory; "disk": in files."""


def stored(hidden: torch.Tensor, offload: Offload) -> torch.Tensor:
    """Hidden states where they are to be kept.

    On the disk each is a file without a name in the system's folder for temporary files (TMPDIR),
    which is mapped into memory and gone with the tensor, or with the process.

    Args:
        hidden: of a batch, on the device.
        offload: whether, and where to.

    Raises:
        DiskFull: there is no room for them.
    """
    if offload != "disk":
        return hidden.to("cpu") if offload else hidden
    folder, size = tempfile.gettempdir(), max(1, hidden.nbytes)
    with (
        needing_room(f"{folder}/hidden", size, f"hidden states (offload='disk') in {folder}"),
        tempfile.TemporaryFile() as file,
    ):
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk shows here
        name, shape = f"/proc/self/fd/{file.fileno()}", hidden.shape
        flat = torch.from_file(name, shared=True, size=hidden.numel(), dtype=hidden.dtype)
        return flat.view(shape).copy_(hidden)
