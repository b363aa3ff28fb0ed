"""One thread per process: tiny tensors gain nothing from more, and busy machines lose a lot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def token_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the user's home."""
    folder = tmp_path_factory.getbasetemp() / "token-cache"
    monkeypatch.setenv("LIGHTNING_PRUNE_CACHE", str(folder))
    return folder
