"""Blocks go to the device one at a time, and come home, whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune import GQATaylor, Magnitude, Wanda, prune
from lightning_prune.anatomy import Anatomy
from tests.contract.cases import batches, even_model
from tests.sweep.helpers import traces

AMOUNT: dict[Any, dict[str, float]] = {Wanda: {"sparsity": 0.5}, GQATaylor: {"ratio": 0.5}}


class Recorder:
    """Notes where each block is sent."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.sent: dict[int, list[str]] = {}
        for block in Anatomy(model).blocks:
            self.sent[block.index] = []

            def to(device: Any, index: int = block.index) -> None:
                self.sent[index].append(str(device))

            block.module.to = to  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize("cls", AMOUNT)
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_the_middle_leaves_nothing_behind(cls: Any, failing: int) -> None:
    """At the moment it is caught: no hooks, no forwards, modes as before, blocks at home."""

    class Broken(cls):  # type: ignore[misc]
        def score(self, block: Any, evidence: Any) -> Any:
            if block.index == failing:
                raise RuntimeError("out of memory")
            return super().score(block, evidence)

    model = even_model("llama").train()
    before = traces(model)
    recorder = Recorder(model)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        prune(model, Broken(**AMOUNT[cls]), batches(), device="cpu:0")
    assert traces(model) == before
    for sent in recorder.sent.values():
        assert sent[-1:] in (["cpu"], [])
    assert caught.tb is not None  # the frames that raised are still alive


@pytest.mark.parametrize(
    "method",
    [Wanda(sparsity=0.5), GQATaylor(ratio=0.25, offload=True), Magnitude(sparsity=0.5)],
    ids=str,
)
def test_blocks_go_to_the_device_one_at_a_time(method: Any) -> None:
    """Every block comes home before the next one leaves."""
    model = even_model("llama")
    away: set[int] = set()
    most = 0
    for block in Anatomy(model).blocks:

        def to(device: Any, index: int = block.index) -> None:
            nonlocal most
            away.add(index) if str(device) == "cpu:0" else away.discard(index)
            most = max(most, len(away))

        block.module.to = to  # type: ignore[assignment, method-assign]
    prune(model, method, batches(), device="cpu:0")
    assert most == 1
    assert not away


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("cls", AMOUNT)
def test_a_model_on_the_cpu_is_pruned_on_the_gpu(cls: Any, offload: bool) -> None:
    """Block by block; it stays on the CPU, and the scores are those of the CPU."""
    model, other = even_model("llama"), even_model("llama")
    settings = AMOUNT[cls] | {"keep_scores": True, "layer_end": 1}
    here = prune(model, cls(**settings), batches())
    there = prune(other, cls(offload=offload, **settings), batches(), device="cuda")
    assert {p.device.type for p in other.parameters()} == {"cpu"}
    for key in here._scores:
        torch.testing.assert_close(there._scores[key], here._scores[key], rtol=1e-3, atol=1e-3)
