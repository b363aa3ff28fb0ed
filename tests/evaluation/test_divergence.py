"""The divergence of variants of a model from it: against a slow loop, side by side or alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evaluation.divergence import Divergence
from lightning_prune.sweep import divergence_of
from tests.contract.cases import assert_same_state, even_model, state
from tests.tiny import tiny_batch


def scaled(block: Block, factor: Any) -> None:
    """A variant: the MLP's output times a factor."""
    block.module.get_submodule("mlp.down_proj").weight.data.mul_(factor)


def windows(count: int = 3) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": row[None]} for row in tiny_batch(count, 9)]


def test_the_divergence_is_that_of_a_slow_loop() -> None:
    """Σ p (ln p - ln q) at every place that predicts a token; padding does not count."""
    ids = tiny_batch(2, 9)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    dense, other = even_model("llama"), even_model("llama")
    scaled(Anatomy(other).blocks[1], 1.5)
    with torch.no_grad():
        p, q = (m(ids, attention_mask=mask).logits.double().softmax(-1) for m in (dense, other))
    expected = [0.0, 0.0]
    for window, places in enumerate((8, 5)):
        for place in range(places):
            for a, b in zip(p[window, place].tolist(), q[window, place].tolist(), strict=True):
                expected[window] += a * (math.log(a) - math.log(b))
    divergence = Divergence(
        dense, [{"input_ids": ids, "attention_mask": mask}], torch.device("cpu")
    )
    assert divergence.places == [13]
    found = divergence.of([[None, 1.5, None]], scaled)
    assert found == [pytest.approx(expected, rel=1e-4)]


def test_variants_side_by_side_are_what_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they share; the model itself has none, and is left as it was."""
    model = even_model("llama")
    before = state(model)
    divergence = Divergence(model, windows(), torch.device("cpu"))
    variants = [
        [None, None, None],
        [0.5, None, 2.0],
        [0.5, None, None],
        [0.5, 1.5, 2.0],
        [None, 1.5, 2.0],
    ]
    together = divergence.of(variants, scaled)
    assert together[0] == [0.0, 0.0, 0.0]
    assert together == [divergence.of([one], scaled)[0] for one in variants]
    assert [one[:2] for one in together] == divergence.of(variants, scaled, windows=2)
    assert len({tuple(one) for one in together}) == len(variants)
    monkeypatch.setattr("lightning_prune.evaluation.divergence.AT_ONCE", 2)
    assert divergence.of(variants, scaled) == together
    assert_same_state(model, before)


def test_blocks_that_are_shared_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two variants that differ in the last block alone cost one block more than one of them."""
    model = even_model("llama")
    divergence = Divergence(model, windows(1), torch.device("cpu"))
    runs: list[int] = []
    real = divergence._states.__class__.advance

    def counting(self: Any, block: Block) -> None:
        runs.append(block.index)
        real(self, block)

    monkeypatch.setattr(divergence._states.__class__, "advance", counting)
    divergence.of([[0.5, None, 2.0], [0.5, None, 3.0]], scaled)
    assert runs == [0, 1, 2, 2]


def test_the_divergence_of_a_distribution_from_itself_is_none() -> None:
    """Also where the logits are shifted; it grows with the difference."""
    logits = torch.tensor([[1.0, 2.0, -3.0]])
    log_p = logits.log_softmax(-1)
    torch.testing.assert_close(divergence_of(log_p, logits + 7), torch.zeros(1))
    near, far = (divergence_of(log_p, logits * factor) for factor in (1.1, 2.0))
    assert 0 < float(near) < float(far)
