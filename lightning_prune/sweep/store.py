"""Where hidden states are kept between blocks: on the device, in the CPU's memory, on the disk."""

from __future__ import annotations

import os
import tempfile
from typing import Literal

import torch

__all__ = ["Offload", "stored"]

Offload = bool | Literal["disk"]
"""False: on the device; True: in the CPU's memory; "disk": in files."""


def stored(hidden: torch.Tensor, offload: Offload) -> torch.Tensor:
    """Hidden states where they are to be kept.

    On the disk each is a file of its own in the system's folder for temporary files (TMPDIR), which
    is mapped into memory and gone with the tensor, or with the process.

    Args:
        hidden: of a batch, on the device.
        offload: whether, and where to.

    Raises:
        OSError: the disk is full.
    """
    if offload != "disk":
        return hidden.to("cpu") if offload else hidden
    with tempfile.NamedTemporaryFile(prefix="hidden-") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, hidden.nbytes))  # a full disk shows here
        flat = torch.from_file(file.name, shared=True, size=hidden.numel(), dtype=hidden.dtype)
        return flat.view(hidden.shape).copy_(hidden)
