"""2:4 tensors for NVIDIA's sparse tensor cores: what is refused, and that results stay."""

from __future__ import annotations

import copy

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.export import to_semi_structured
from lightning_prune.export.semi_structured import why_dense
from lightning_prune.selection import Pattern, keep_n_of_m
from tests.tiny import tiny_batch, tiny_model

gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs an NVIDIA GPU of compute capability 8.0 or later",
)


def two_of_four(weight_OI: torch.Tensor) -> torch.Tensor:
    return weight_OI * keep_n_of_m(weight_OI.abs().float(), Pattern(2, 4)).to(weight_OI)


def test_a_machine_without_the_hardware_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is changed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"need an NVIDIA GPU .* torch sees no GPU here"):
        to_semi_structured(tiny_model("llama"))


def test_a_model_on_the_wrong_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU in the machine and the model on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"the model is on cpu; move it first"):
        to_semi_structured(tiny_model("llama"))


def test_what_cannot_be_converted_has_a_reason() -> None:
    """Type, shape and pattern, in this order."""
    weight_OI = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    half = two_of_four(weight_OI).bfloat16()
    assert why_dense(half) is None
    assert why_dense(half.float()) == (
        "is torch.float32; the kernels take torch.float16 and torch.bfloat16"
    )
    assert why_dense(half[:, :32]) == "is 32 x 32; the kernels take multiples of 32 x 64"
    assert why_dense(weight_OI.half()) == "has up to 4 weights in a group of 4, not 2"


@pytest.mark.gpu
@gpu
@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor:UserWarning")
def test_a_converted_model_computes_the_same() -> None:
    """Linears that are 2:4 are converted, the others stay dense."""
    model = tiny_model(
        "llama", hidden_size=128, intermediate_size=256, head_dim=16, dtype=torch.bfloat16
    ).to("cuda")
    sites = [site for block in Anatomy(model).blocks for site in block.sites]
    with torch.no_grad():
        for site in sites[1:]:
            site.module.weight.copy_(two_of_four(site.module.weight))
        ids_BT = tiny_batch(8, 16).to("cuda")
        exact = copy.deepcopy(model).float()(ids_BT).logits
        rounded = (model(ids_BT).logits - exact).norm()
        assert to_semi_structured(model) == [site.name for site in sites[1:]]
        assert (model(ids_BT).logits - exact).norm() < 2 * rounded < 0.1 * exact.norm()


@pytest.mark.gpu
@gpu
def test_a_dense_model_is_refused() -> None:
    """And left as it was."""
    model = tiny_model(
        "llama", hidden_size=128, intermediate_size=256, head_dim=16, dtype=torch.bfloat16
    ).to("cuda")
    with pytest.raises(ValueError, match="no Linear can be made semi-structured"):
        to_semi_structured(model)
