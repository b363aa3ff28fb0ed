"""What goes through the two buffers arrives as it was."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.sweep.staging import Staging, to_device
from tests.gpu.device import DEVICE

CPU = torch.device("cpu")


@pytest.mark.parametrize("numel", [0, 1, 31, 32, 33, 64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_a_copy_has_the_same_bits(numel: int, dtype: torch.dtype) -> None:
    """Below, at and above the size of the buffers, one tensor behind the other."""
    staging = Staging(CPU, size=64)
    tensors = [torch.randint(-100, 100, (numel, rows)).to(dtype) for rows in (1, 3, 2)]
    for tensor, copy in zip(tensors, [staging.copied(one) for one in tensors], strict=True):
        assert copy.shape == tensor.shape
        assert torch.equal(copy, tensor)


def test_what_is_not_contiguous_goes_by_itself() -> None:
    """With its values in their places."""
    tensor = torch.arange(600.0).view(20, 30).mT[:, ::2]
    assert torch.equal(Staging(CPU, size=64).copied(tensor), tensor)


def test_what_is_there_stays() -> None:
    """No copy of it is made."""
    tensor = torch.ones(3)
    assert to_device(tensor, CPU) is tensor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_buffers_are_not_filled_before_they_are_read() -> None:
    """Many large tensors at once, while the device is busy."""
    staging, busy = Staging(DEVICE, size=2**20), torch.ones(4096, 4096, device=DEVICE)
    tensors = [torch.randn(2**20 + 7 * i) for i in range(24)]
    for _ in range(8):
        busy = busy @ busy
    copies = [staging.copied(tensor) for tensor in tensors]
    for tensor, copy in zip(tensors, copies, strict=True):
        assert torch.equal(copy.cpu(), tensor)
