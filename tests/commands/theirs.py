"""A module and a data module of somebody else, as a command line names them."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lightning_prune import CausalLM


class Theirs(CausalLM):
    """A model whose loss is weighed.

    Args:
        path: a folder.
        weight: of the loss.
    """

    def __init__(self, path: str, weight: float = 1.0) -> None:
        super().__init__(path)
        self.weight = weight

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.weight * super().training_step(batch, batch_idx)


class TheirData(LightningDataModule):
    """Windows of tokens that are counted up.

    Args:
        windows: how many there are.
    """

    def __init__(self, windows: int = 8) -> None:
        super().__init__()
        self.windows = windows

    def calibration_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        tokens_NT = torch.arange(self.windows * 16).view(self.windows, 16) % 64
        rows = [{"input_ids": window, "labels": window} for window in tokens_NT]
        return DataLoader(rows, batch_size=4, generator=torch.Generator())

    train_dataloader = val_dataloader = test_dataloader = calibration_dataloader
