"""Lightning's checkpoints, written beside their place and renamed: whole, or not at all.

Lightning writes them into the system's folder for temporary files and moves them. Where that is on
another disk than the run, moving is copying, and a full disk leaves half of a file in the place of
the last checkpoint.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_prune.files import replacing

__all__ = ["WholeCheckpointIO"]


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a hidden file beside its place, and renames it when it is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save a checkpoint.

        Raises:
            DiskFull: there is no room for it; one that was there is left as it was.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(Path(path), content.tell()) as temporary:
            temporary.write_bytes(content.getbuffer())
