"""What a grid of methods collects once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune import OWL, RIA, PerBlock, Sensitivity, SparseGPT, Wanda, prune
from lightning_prune.pipeline.reuse import Reuse
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.sweep.helpers import counting_blocks

CASES: list[tuple[Any, Any]] = [
    (Wanda(sparsity=0.5, propagate="none"), RIA(pattern="2:4", propagate="none")),
    (SparseGPT(sparsity=0.3, propagate="none"), SparseGPT(sparsity=0.6, propagate="none")),
]


@pytest.mark.parametrize(("first", "second"), CASES, ids=str)
def test_evidence_of_the_dense_model_is_collected_once(first: Any, second: Any) -> None:
    """The second method runs no block, and does what it would have done alone."""
    reuse, alone, model = Reuse(), even_model("llama"), even_model("llama")
    prune(alone, second, batches())
    prune(even_model("llama"), first, batches(), reuse=reuse)
    with counting_blocks(model) as seen:
        prune(model, second, batches(), reuse=reuse)
    assert seen == []
    assert_same_state(model, state(alone))


@pytest.mark.parametrize(
    ("allocation", "own"), [(OWL(), []), (Sensitivity(windows=2), [0, 0, 1, 1, 2, 2])], ids=str
)
def test_importance_is_measured_once_for_all_sparsities(allocation: Any, own: list[int]) -> None:
    """It is the dense model's, whatever the method and the sparsity.

    What OWL looks at is what Wanda scores by; beside trials it collects its own, in two batches.
    """
    reuse, alone, model = Reuse(), even_model("llama"), even_model("llama")
    again = Wanda(sparsity=0.6, propagate="none", allocation=allocation)
    prune(alone, again, batches())
    prune(
        even_model("llama"), SparseGPT(sparsity=0.4, allocation=allocation), batches(), reuse=reuse
    )
    with counting_blocks(model) as seen:
        prune(model, again, batches(), reuse=reuse)
    assert seen == own
    assert_same_state(model, state(alone))


def test_other_sites_and_other_orders_collect_their_own() -> None:
    """Nothing is taken from a method that looked at other sites, or saw changes."""
    reuse = Reuse()
    prune(even_model("llama"), Wanda(sparsity=0.5, propagate="none"), batches(), reuse=reuse)
    uneven = PerBlock(fractions=[0.4, 0.6])
    for other in (
        Wanda(sparsity=0.5),
        Wanda(sparsity=0.5, propagate="none", exclude=["*.o_proj"]),
        Wanda(sparsity=0.5, propagate="none", embeddings=True),
        Wanda(sparsity=0.5, propagate="none", layer_end=2, allocation=uneven),
    ):
        alone, model = even_model("llama"), even_model("llama")
        prune(alone, other, batches())
        prune(model, other, batches(), reuse=reuse)
        assert_same_state(model, state(alone))


def test_what_is_kept_stays_as_it_was() -> None:
    """Methods do not change the evidence that they share."""
    reuse = Reuse()
    prune(even_model("llama"), SparseGPT(sparsity=0.5, propagate="none"), batches(), reuse=reuse)
    ((_, steps),) = reuse.evidence.items()
    before = [{name: value.clone() for name, value in step.items()} for step in steps]
    prune(even_model("llama"), SparseGPT(pattern="2:4", propagate="none"), batches(), reuse=reuse)
    for step, kept in zip(steps, before, strict=True):
        torch.testing.assert_close(dict(step), kept, rtol=0, atol=0)
