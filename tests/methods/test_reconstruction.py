"""Methods that correct the weights that stay, after others and at their edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune import (
    ALPS,
    Ablation,
    ResidualFit,
    SparseGPT,
    Wanda,
    prune,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.methods.reconstruction import Problem
from lightning_prune.selection import removed_count, weights
from tests.contract.cases import batches, even_model

CORRECTING = [SparseGPT, ALPS, ResidualFit, Ablation]


@pytest.mark.parametrize("cls", CORRECTING, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("second", [0.3, 0.7])
def test_what_an_earlier_method_removed_stays_removed(cls: Any, second: float) -> None:
    """Whether the later one removes less than the earlier one, or more."""
    model = even_model("llama")
    first = prune(model, Wanda(sparsity=0.5), batches())
    later = prune(model, cls(sparsity=second), batches())
    for block in Anatomy(model).blocks:
        for site in block.sites:
            gone_OI = ~(first.mask(site.weight_name) & later.mask(site.weight_name))
            assert not site.module.weight[gone_OI].any(), site.name
    assert later.sparsity() == pytest.approx(max(0.5, second), abs=0.03)


@pytest.mark.parametrize("settings", [{}, {"columns": 5}])
def test_whole_rows_lose_their_exact_count(settings: dict[str, int]) -> None:
    """Although they are chosen some columns at a time."""
    model = even_model("llama", intermediate_size=200)
    plan = prune(model, SparseGPT(sparsity=0.55, scope="row", **settings), batches())
    for name in plan.mask_names:
        keep_OI = plan.mask(name)
        assert set((~keep_OI).sum(dim=1).tolist()) == {removed_count(keep_OI.shape[1], 0.55)}


@pytest.mark.parametrize("make", [SparseGPT, lambda **s: Ablation(mask_from="updated", **s)])
def test_a_matrix_is_no_scope_where_columns_go_one_after_the_other(make: Any) -> None:
    """It would silently be some columns."""
    with pytest.raises(ValueError, match=r"scope is 'row', 'balanced' or 'columns', not 'matrix'"):
        make(sparsity=0.5, scope="matrix")


@pytest.mark.parametrize("cls", CORRECTING, ids=lambda cls: cls.__name__)
def test_an_input_of_zeros_is_no_error(cls: Any) -> None:
    """Nothing can be learnt about its weights, and nothing breaks."""
    model = even_model("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight.zero_()
    prune(model, cls(sparsity=0.5), batches())
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_plans_that_differ_in_corrected_values_have_other_fingerprints() -> None:
    """Two dampings, one fixed mask: the same zeros, and other weights."""
    weak, strong = (
        prune(even_model("llama"), Ablation(sparsity=0.5, damping=d, propagate="none"), batches())
        for d in (0.01, 1.0)
    )
    assert all(torch.equal(weak.mask(name), strong.mask(name)) for name in weak.mask_names)
    assert weak.fingerprint() != strong.fingerprint()


class Launches(TorchDispatchMode):
    """Counts the operations that a GPU would start a kernel for."""

    count = 0

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (function.is_view or "empty" in function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("settings", "most"),
    [({"pattern": "2:4"}, 5), ({"pattern": "4:8"}, 4), ({"sparsity": 0.5}, 3)],
    ids=str,
)
def test_a_column_takes_few_launches_of_a_gpu(
    settings: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what columns cost there, one after the other, however many sites share them."""
    random = torch.Generator().manual_seed(0)
    input_TI = torch.randn(600, 256, generator=random)
    weight_OI = torch.randn(96, 256, generator=random)
    problem = Problem(weight_OI, input_TI.T @ input_TI, (32, 40, 24), 0.5)
    expected = SparseGPT(**settings).solve(problem)
    monkeypatch.setattr(weights, "_higher_by_pairs", weights._higher_at_once)
    with Launches() as launches:
        found = SparseGPT(**settings).solve(problem)
    assert launches.count <= most * 256
    assert torch.equal(found.keep_OI, expected.keep_OI)
    assert torch.equal(found.weight_OI, expected.weight_OI)
