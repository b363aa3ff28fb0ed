"""The kernel for sparse activations on a GPU: the product, repeated, in a graph, in a model."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from lightning_prune import sparse_activations
from lightning_prune.kernels import reference_product
from lightning_prune.kernels.layout import column_major
from tests.gpu.device import DEVICE, on_gpu
from tests.kernels.test_context import cut_by_hooks, thresholds_of
from tests.tiny import tiny_batch, tiny_model

pytestmark = [
    *on_gpu,
    pytest.mark.skipif(DEVICE.type != "cuda", reason="the kernel runs on CUDA devices"),
    pytest.mark.skipif(find_spec("triton") is None, reason="needs triton"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning"),
]


def made(rows: int, outputs: int, inputs: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator(DEVICE).manual_seed(0)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    return [torch.randn(s, generator=generator, device=DEVICE).to(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(4096, 14336), (4096, 4096), (1021, 4099), (17, 5), (1, 1)]
)
def test_it_is_the_reference_and_repeats(
    outputs: int, inputs: int, rows: int, dtype: torch.dtype
) -> None:
    """Within 2e-3 of the largest output; to the bit when it is called again."""
    from lightning_prune.kernels.gemv import sparse_gemv

    input_BI, weight_OI, bias_O = made(rows, outputs, inputs, dtype)
    for threshold in (0.0, 0.674, 100.0):
        expected = reference_product(input_BI, weight_OI, threshold, bias_O)
        arguments = (input_BI, column_major(weight_OI), threshold, bias_O)
        found = sparse_gemv(*arguments)
        error = (found.float() - expected).abs().max() / expected.abs().max()
        assert float(error) < 2e-3
        assert all(torch.equal(sparse_gemv(*arguments), found) for _ in range(5))


def test_it_runs_in_a_graph() -> None:
    """When its launch has been chosen."""
    from lightning_prune.kernels.gemv import sparse_gemv

    input_BI, weight_OI, _ = made(1, 512, 768, torch.float16)
    weight_OI = column_major(weight_OI)
    expected = sparse_gemv(input_BI, weight_OI, 0.5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = sparse_gemv(input_BI, weight_OI, 0.5)
    graph.replay()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@torch.inference_mode()
def test_a_model_decodes() -> None:
    """What the same model gives on the CPU, in bf16, token by token."""
    model = tiny_model("llama", dtype=torch.bfloat16).to(DEVICE)
    thresholds, ids_BT = thresholds_of(model), tiny_batch()[:2].to(DEVICE)
    expected = cut_by_hooks(model, thresholds, lambda: model(input_ids=ids_BT).logits)
    with sparse_activations(model, thresholds) as sparse:
        output = model(input_ids=ids_BT[:, :8], use_cache=True)
        output = model(ids_BT[:, 8:9], past_key_values=output.past_key_values, use_cache=True)
    assert sparse.note == ""
    torch.testing.assert_close(output.logits[:, 0], expected[:, 8], rtol=5e-2, atol=5e-2)
    assert all(p.is_contiguous() for p in model.parameters())
