"""Blocks go to the device one at a time, and come home, whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from lightning_prune import FLAP, GQATaylor, Magnitude, Wanda, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.sweep import placement
from tests.contract.cases import batches, even_model
from tests.sweep.helpers import traces

AMOUNT: dict[Any, dict[str, float]] = {Wanda: {"sparsity": 0.5}, GQATaylor: {"ratio": 0.5}}


class Loans:
    """Watches which blocks are on the device."""

    def __init__(self, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away: set[int] = set()
        self.most = 0
        self.visits: Counter[int] = Counter()
        blocks = {block.module: block.index for block in Anatomy(model).blocks}
        lent = placement.on_device

        @contextmanager
        def watched(modules: Any, *settings: Any) -> Iterator[None]:
            leaving = {blocks[module] for module in modules if module in blocks}
            self.away |= leaving
            self.visits.update(leaving)
            self.most = max(self.most, len(self.away))
            try:
                with lent(modules, *settings):
                    yield
            finally:
                self.away -= leaving

        monkeypatch.setattr(placement, "on_device", watched)


@pytest.mark.parametrize("cls", AMOUNT)
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_the_middle_leaves_nothing_behind(
    cls: Any, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment it is caught: no hooks, no forwards, modes as before, blocks at home."""

    class Broken(cls):  # type: ignore[misc]
        def score(self, block: Any, evidence: Any) -> Any:
            if block.index == failing:
                raise RuntimeError("out of memory")
            return super().score(block, evidence)

    model = even_model("llama").train()
    before = traces(model)
    loans = Loans(model, monkeypatch)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        prune(model, Broken(**AMOUNT[cls]), batches(), device="cpu:0")
    assert traces(model) == before
    assert loans.most
    assert not loans.away
    assert caught.tb is not None  # the frames that raised are still alive


@pytest.mark.parametrize(
    "method",
    [Wanda(sparsity=0.5), GQATaylor(ratio=0.25, offload=True), Magnitude(sparsity=0.5)],
    ids=str,
)
def test_blocks_go_to_the_device_one_at_a_time(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block comes home before the next one leaves."""
    model = even_model("llama")
    loans = Loans(model, monkeypatch)
    prune(model, method, batches(), device="cpu:0")
    assert loans.most == 1
    assert not loans.away


@pytest.mark.parametrize(
    ("method", "visits"),
    [
        (Magnitude(sparsity=0.5), 1),
        (Wanda(sparsity=0.5), 1),
        (FLAP(ratio=0.25), 2),  # to score, and to repair
    ],
    ids=str,
)
def test_no_block_goes_there_only_to_be_looked_at(
    method: Any, visits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether weights are finite is asked on a visit that is made anyway."""
    model = even_model("llama")
    loans = Loans(model, monkeypatch)
    prune(model, method, batches(), device="cpu:0")
    assert loans.visits == {0: visits, 1: visits, 2: visits}


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
