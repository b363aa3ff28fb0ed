"""True-sequential pruning in one pass: what each site sees, and what is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import InputNorm
from lightning_prune.sweep.forward import forward_sweep
from tests.sweep.helpers import padded, split, states_of, traces
from tests.sweep.test_forward import halve, site_norms
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model


def sweep_and_cut(
    model: nn.Module, batches: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Norms of every site; half of the rows go from each site as soon as it is seen."""
    found = {}
    states = states_of(model, batches)
    for block, evidence in forward_sweep(states, InputNorm(), states.anatomy.blocks, "layer"):
        for site in block.sites:
            found[site.name] = evidence[site.table.reads]
            halve(site.module)
    return found


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_each_site_sees_all_changes_before_it(model_type: str) -> None:
    """Evidence is that of a model in which all earlier inputs' sites were changed, and no later."""
    batch = padded("left")
    found = sweep_and_cut(tiny_model(model_type), split(batch, 2))
    changed = tiny_model(model_type)
    for block in Anatomy(changed).blocks:
        for sites in block.inputs().values():
            expected = site_norms(changed, batch)
            for site in sites:
                torch.testing.assert_close(
                    found[site.name], expected[site.name], rtol=1e-4, atol=1e-5
                )
                halve(site.module)


def test_batches_of_different_lengths_wait_for_each_other() -> None:
    """Each batch is a call of its own, of whatever shape."""
    batches = [
        {"input_ids": tiny_batch(2, 12)},
        {"input_ids": tiny_batch(1, 5)},
        {"input_ids": tiny_batch(3, 9)},
    ]
    found = sweep_and_cut(tiny_model("llama"), batches)
    alone = [sweep_and_cut(tiny_model("llama"), [batch]) for batch in batches]
    for name, norm_I in found.items():
        expected_I = torch.stack([one[name].double() for one in alone]).norm(dim=0).float()
        torch.testing.assert_close(norm_I, expected_I, rtol=1e-4, atol=1e-6)


def test_it_is_the_same_bit_for_bit_every_time() -> None:
    """Batches go on in their order, always."""
    first = sweep_and_cut(tiny_model("llama"), split(padded("left"), 1))
    second = sweep_and_cut(tiny_model("llama"), split(padded("left"), 1))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_an_error_behind_the_first_input_leaves_nothing() -> None:
    """Suspended calls are ended, whichever batch fails, and the error is the block's own."""
    model = tiny_model("llama")
    before, ended = traces(model), []

    class Breaking(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, *args: Any) -> Any:
            self.calls += 1
            try:
                if self.calls == 3:
                    raise RuntimeError("broken activation")
                return self.inner(*args)
            finally:
                ended.append(self.calls)

    mlp: Any = model.model.layers[0].mlp
    inner, mlp.act_fn = mlp.act_fn, Breaking(mlp.act_fn)
    states = states_of(model, split(padded("left"), 1))
    with pytest.raises(RuntimeError, match="broken activation"):
        list(forward_sweep(states, InputNorm(), states.anatomy.blocks, "layer"))
    mlp.act_fn = inner
    assert traces(model) == before
    assert torch.is_grad_enabled()


def test_a_context_left_open_by_one_batch_is_not_seen_by_another() -> None:
    """Grad mode and autocast belong to the call that set them, also while it waits."""
    model = tiny_model("llama")
    seen: list[tuple[bool, bool]] = []
    mlp: Any = model.model.layers[0].mlp
    own = mlp.forward

    def forward(hidden: torch.Tensor) -> Any:
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            output = own(hidden)
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return output

    mlp.forward = forward
    states = states_of(model, split(padded("none"), 1))
    blocks = states.anatomy.blocks[:2]
    for _, _ in forward_sweep(states, InputNorm(), blocks, "layer"):
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    assert seen == [(False, False)] * len(seen)
    assert len(seen) == 2 * 3  # before and after, in each batch


def test_a_block_that_skips_an_input_is_refused() -> None:
    """Its sites would be pruned without evidence."""
    model = tiny_model("llama")
    mlp: Any = model.model.layers[0].mlp
    mlp.forward = lambda hidden: hidden
    states = states_of(model, split(padded("none"), 2))
    with pytest.raises(RuntimeError, match="does not pass mlp_input.*propagate='block'"):
        list(forward_sweep(states, InputNorm(), states.anatomy.blocks, "layer"))
