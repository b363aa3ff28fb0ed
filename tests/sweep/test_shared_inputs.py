"""Sweeps over one model share what they find in front of its blocks."""

from __future__ import annotations

import weakref
from contextlib import nullcontext

import pytest
import torch

from lightning_prune import AFR, WeightAFR, prune
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Feature, Gradients, TaskLoss
from lightning_prune.sweep import HiddenStates, memory
from lightning_prune.sweep.backward import gradient_sweep
from tests.sweep.helpers import counting_blocks, padded, split, states_of
from tests.tiny import tiny_model


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("free", [10**9, 0], ids=["all kept", "some made again"])
def test_sweeps_may_share_the_inputs_of_blocks(
    first: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit as by themselves, without the second one's pass forward; they are let go."""
    monkeypatch.setattr(memory, "free_on_device", lambda _: free)
    model, batches = tiny_model("llama", num_hidden_layers=5), split(padded("left"), 2)

    def both(states: HiddenStates) -> list[dict[str, Gradients]]:
        found = []
        for objective in (Feature(), TaskLoss()):
            kind, blocks = Gradients(objective=objective), states.anatomy.blocks[first:]
            sweep = gradient_sweep(states, kind, blocks, whole=False)
            found.append({name: one for _, table in sweep for name, one in table.items()})
        return found

    with counting_blocks(model) as alone:
        expected = both(states_of(model, batches))
    states = states_of(model, batches)
    with counting_blocks(model) as shared, states.sharing_inputs():
        found = both(states)
        kept = [weakref.ref(one) for one in states.shared_inputs.values()]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, gradients in one.items():
            assert torch.equal(gradients.first_OI, other[name].first_OI)
    assert len(alone) - len(shared) == 5 * len(batches)
    assert kept
    assert not any(reference() for reference in kept)


@pytest.mark.parametrize("method", [AFR(ratio=0.4, repair=None), WeightAFR(sparsity=0.4)], ids=str)
def test_afr_collects_the_inputs_of_blocks_once(
    method: PruningCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block by block: three passes forward for its two objectives, with the scores of four."""
    method.offload, method.keep_scores = True, True
    batches = split(padded("left"), 2)
    with counting_blocks(model := tiny_model("llama")) as seen:
        shared = prune(model, method, batches)
    assert len(seen) == 3 * 3 * len(batches)
    monkeypatch.setattr(HiddenStates, "sharing_inputs", lambda _: nullcontext())
    with counting_blocks(model := tiny_model("llama")) as seen:
        alone = prune(model, method, batches)
    assert len(seen) == 4 * 3 * len(batches)
    assert shared.fingerprint() == alone.fingerprint()
    for key, score in shared._scores.items():
        assert torch.equal(score, alone._scores[key])
