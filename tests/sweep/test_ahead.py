"""The next block comes to the device while one is at work; what changed meanwhile is not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import FLAP, SparseGPT, Taylor, Wanda, load, prune, save
from lightning_prune.sweep import placement
from lightning_prune.sweep.ahead import Ahead
from lightning_prune.sweep.staging import Staging
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.gpu.device import DEVICE, on_gpu
from tests.sweep.test_placement import ELSEWHERE

METHODS = [
    Wanda(sparsity=0.5),
    Wanda(sparsity=0.5, layer_end=1),
    SparseGPT(sparsity=0.5, propagate="layer"),
    FLAP(ratio=0.3),
    Taylor(ratio=0.3, offload=True),
]


class Used(Ahead):
    """Counts the tensors that came ahead and were used."""

    tensors = 0

    def take(self, modules: Any) -> dict[int, torch.Tensor]:
        copies = super().take(modules)
        Used.tensors += len(copies)
        return copies


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> type[Used]:
    """As on a GPU, where the device is not called by the CPU's own name."""
    Used.tensors = 0
    monkeypatch.setattr(placement, "copies_ahead", lambda device: device == ELSEWHERE)
    monkeypatch.setattr(placement, "Ahead", Used)
    return Used


@pytest.mark.parametrize("where", ["memory", "checkpoint"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_it_changes_nothing(method: Any, where: Any, ahead: type[Used], tmp_path: Path) -> None:
    """Decisions and weights are the same bits, in memory and in files, forward and back."""
    folder = save(even_model("llama"), tmp_path / "model")
    model, other = (load(folder, placement=where) for _ in range(2))
    plan = prune(model, method, batches())
    assert not ahead.tensors
    assert prune(other, method, batches(), device="cpu:0").fingerprint() == plan.fingerprint()
    assert_same_state(other, state(model))
    assert ahead.tensors


def test_a_copy_has_the_same_bits_and_is_another_tensor() -> None:
    """Of parameters and buffers; it is given once."""
    module, ahead = nn.BatchNorm1d(300), Ahead(ELSEWHERE)
    ahead.begin(module)
    copies = ahead.take([nn.Linear(2, 2), module])
    tensors = [*module.parameters(), *module.buffers()]
    assert copies.keys() == {id(tensor) for tensor in tensors}
    for tensor in tensors:
        assert torch.equal(copies[id(tensor)], tensor)
        assert copies[id(tensor)].data_ptr() != tensor.data_ptr()
    assert ahead.take([module]) == {}


@torch.no_grad()
def test_what_was_changed_meanwhile_is_not_used() -> None:
    """In place, or by numbers that lie elsewhere."""
    module, ahead = nn.Linear(3, 2), Ahead(ELSEWHERE)
    ahead.begin(module)
    module.weight.mul_(2)
    assert ahead.take([module]).keys() == {id(module.bias)}
    ahead.begin(module)
    module.bias.data = module.bias.clone()
    assert ahead.take([module]).keys() == {id(module.weight)}


def test_another_module_gets_nothing() -> None:
    """And what was begun is let go."""
    module, ahead = nn.Linear(3, 2), Ahead(ELSEWHERE)
    ahead.begin(module)
    assert ahead.take([nn.Linear(3, 2)]) == {}
    assert ahead.take([module]) == {}


@pytest.mark.parametrize(
    ("error", "caught"), [(torch.OutOfMemoryError, None), (OSError, OSError)], ids=str
)
def test_without_room_a_block_comes_when_it_is_needed(
    error: type[Exception], caught: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other errors are raised where it is."""

    def fail(*_: Any) -> torch.Tensor:
        raise error("in the thread")

    monkeypatch.setattr(Staging, "copied", fail)
    module, ahead = nn.Linear(3, 2), Ahead(ELSEWHERE)
    ahead.begin(module)
    if caught is None:
        assert ahead.take([module]) == {}
    else:
        with pytest.raises(caught, match="in the thread"):
            ahead.take([module])


def test_little_room_is_left_to_the_evidence(
    ahead: type[Used], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes ahead then."""
    monkeypatch.setattr(placement, "free_on_device", lambda _: 1000)
    prune(even_model("llama"), Wanda(sparsity=0.5), batches(), device="cpu:0")
    assert not ahead.tensors


@pytest.mark.gpu
class TestOnADevice:
    """With a stream of its own."""

    pytestmark = on_gpu

    def test_copies_are_whole_while_the_device_is_busy(self) -> None:
        """What is computed from them waits for them, and memory is not used again too early."""
        modules = [nn.Linear(3000, 3000) for _ in range(6)]
        ahead, busy = Ahead(DEVICE), torch.ones(4096, 4096, device=DEVICE)
        sums = []
        ahead.begin(modules[0])
        for module, following in zip(modules, [*modules[1:], modules[0]], strict=True):
            copies = ahead.take([module])
            ahead.begin(following)
            busy = busy @ busy / 4096
            sums.append(copies[id(module.weight)].double().sum())
            del copies
        for module, total in zip(modules, sums, strict=True):
            torch.testing.assert_close(total.cpu(), module.weight.detach().double().sum())

    @pytest.mark.parametrize("method", METHODS, ids=str)
    def test_it_changes_nothing(self, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against the same device without."""
        model, other = even_model("llama"), even_model("llama")
        plan = prune(model, method, batches(), device=DEVICE)
        monkeypatch.setattr(placement, "copies_ahead", lambda _: False)
        assert prune(other, method, batches(), device=DEVICE).fingerprint() == plan.fingerprint()
        assert_same_state(other, state(model))
