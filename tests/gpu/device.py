"""The device that these tests are about.

TEST_DEVICE=cpu pytest -m gpu        # to see, where there is no GPU, that the tests run
"""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("TEST_DEVICE", "cuda"))
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]
