"""What every method decides on a GPU is what it decides on the CPU."""

from __future__ import annotations

import pytest
import torch

from lightning_prune import FLAP, Plan, Sensitivity, Wanda, prune
from lightning_prune.evaluation import perplexity
from lightning_prune.methods.base import Method
from tests.contract.cases import CASES, Case, batches, even_model
from tests.gpu.device import DEVICE, on_gpu
from tests.tiny import tiny_model

pytestmark = on_gpu


def agreement(plan: Plan, expected: Plan) -> float:
    """The share of decisions on single weights, units and blocks that are the same."""
    assert plan.dropped == expected.dropped
    assert plan.mask_names == expected.mask_names
    same = [plan.mask(name) == expected.mask(name) for name in expected.mask_names]
    for kind in expected.kinds:
        assert plan.blocks(kind).keys() == expected.blocks(kind).keys()
        for block, kept in expected.blocks(kind).items():
            keep_U, expected_U = torch.zeros(2, kept.total, dtype=torch.bool)
            keep_U[plan.kept(kind, block)], expected_U[kept.index_U] = True, True
            same.append(keep_U == expected_U)
    return float(torch.cat([one.flatten() for one in same]).float().mean()) if same else 1.0


def assert_same_model(model: torch.nn.Module, expected: torch.nn.Module) -> None:
    ids_BT = batches()[0]["input_ids"]
    with torch.no_grad():
        there, here = (one.cpu()(input_ids=ids_BT).logits for one in (model, expected))
    assert bool(there.isfinite().all())
    torch.testing.assert_close(there, here, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gpu_decides_as_the_cpu_does(case: Case) -> None:
    """From a model on the CPU, block by block, with and without `offload`; or on the GPU."""
    expected = even_model("llama")
    here = prune(expected, case.make(), batches())
    for offload in (False, True):
        model = even_model("llama")
        there = prune(model, case.make(offload=offload), batches(), device=DEVICE)
        assert {p.device.type for p in model.parameters()} == {"cpu"}
        if agreement(there, here) == 1:
            assert_same_model(model, expected)
        assert agreement(there, here) > 0.98
    model = even_model("llama").to(DEVICE)
    there = prune(model, case.make(), batches())
    assert {p.device.type for p in model.parameters()} == {DEVICE.type}
    assert agreement(there, here) > 0.98


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bfloat16_models_are_pruned(case: Case) -> None:
    """With grouped heads, tied embeddings, and what is counted in fp32 or above."""
    model = even_model("llama", dtype=torch.bfloat16, tie_word_embeddings=True)
    plan = prune(model, case.make(), batches(), device=DEVICE)
    assert plan.provenance
    with torch.no_grad():
        assert bool(model(input_ids=batches()[0]["input_ids"]).logits.isfinite().all())


@pytest.mark.parametrize(
    "method", [Wanda(sparsity=0.5, allocation=Sensitivity(windows=2)), FLAP(ratio=0.3)], ids=repr
)
@pytest.mark.parametrize("model_type", ["gemma3_text", "phi3", "opt"])
def test_other_families(model_type: str, method: Method) -> None:
    """Sliding windows, fused projections, biases."""
    model, expected = tiny_model(model_type), tiny_model(model_type)
    there = prune(model, method, batches(), device=DEVICE)
    assert agreement(there, prune(expected, method, batches())) > 0.98
    assert_same_model(model, expected)


def test_perplexity_is_that_of_the_cpu() -> None:
    """Block by block, the model staying where it is."""
    model = even_model("llama")
    here, there = perplexity(model, batches()), perplexity(model, batches(), device=DEVICE)
    assert there == pytest.approx(here, rel=1e-4)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="counts the memory of a CUDA device")
def test_one_block_at_a_time_is_on_the_device() -> None:
    """With its scores, and what sorting takes: less than half of twelve blocks of equal size."""
    model = even_model("llama", num_hidden_layers=12, hidden_size=512, intermediate_size=2048)
    block = sum(p.numel() * p.element_size() for p in model.model.layers[0].parameters())
    prune(
        even_model("llama"), Wanda(sparsity=0.5), batches(), device=DEVICE
    )  # cuBLAS takes its own
    torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    prune(model, Wanda(sparsity=0.5), batches(), device=DEVICE)
    assert torch.cuda.max_memory_allocated(DEVICE) - before < 6 * block
    assert torch.cuda.memory_allocated(DEVICE) - before < 2**20
