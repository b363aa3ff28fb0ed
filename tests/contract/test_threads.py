"""Every method decides the same with the threads that a user has as with one.

On matrices wide enough for torch's libraries to share them out: features of a GQA group are 192.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import ALPS, prune
from lightning_prune.methods.reconstruction import Reconstruction
from tests.contract.cases import CASES, Case
from tests.tiny import tiny_model

SHAPE: dict[str, Any] = {
    "hidden_size": 384,
    "intermediate_size": 256,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 1,
}
WIDE = [
    case
    for i, case in enumerate(CASES)
    if case.cls.__name__ != "DropBlocks"
    and case.settings.get("ratio", 0) <= 0.5
    and not (case.cls is ALPS and ALPS in [other.cls for other in CASES[:i]])
]
"""Those that leave something of one block with two groups, and ALPS, which is slow, once."""


@pytest.fixture
def threads() -> Iterator[None]:
    """Sets the number back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pruned(case: Case, threads: int) -> nn.Module:
    torch.set_num_threads(threads)
    model = tiny_model("llama", **SHAPE)
    ids_BT = torch.randint(3, 64, (32, 64), generator=torch.Generator().manual_seed(1))
    prune(model, case.make(), [{"input_ids": part} for part in ids_BT.split(16)])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_threads_do_not_show(case: Case, threads: None) -> None:
    """Zeros, and what the pruned models compute, but for the order in which sums are taken.

    Where each layer is fitted to what the ones before it have become, a sum that is rounded
    otherwise grows from layer to layer in a random model: there the first layers are compared.
    """
    one, several = pruned(case, 1), pruned(case, 4)
    weights, method = dict(one.named_parameters()), case.make()
    grows = isinstance(method, Reconstruction) and method.propagation == "layer"
    for name, weight in several.named_parameters():
        assert weight.shape == weights[name].shape
        if not grows or name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            same = ((weight == 0) == (weights[name] == 0)).float().mean()
            assert float(same) > 0.995, name
    ids_BT = torch.arange(3, 51).reshape(2, 24)
    with torch.no_grad():
        expected, logits = (model(input_ids=ids_BT).logits for model in (one, several))
    assert bool(logits.isfinite().all())
    assert grows or float((logits - expected).norm()) < 2e-2 * float(expected.norm())
