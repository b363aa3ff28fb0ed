"""Every method on a device that is not where the model is: nothing is computed of both at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune import AFR, FLAP, Bias, BlockFit, Taylor, Wanda, prune
from tests.contract.cases import Case, assert_same_state, batches, even_model, pruned, state
from tests.contract.marks import every_case
from tests.two_devices import SECOND, second_device


@every_case
def test_offloaded_states_meet_nothing_from_elsewhere(case: Case) -> None:
    """The decisions and weights are those of one device, and the model is home again."""
    (alone, plan), model, method = pruned(case), even_model("llama"), case.make()
    method.offload = True
    with second_device() as devices:
        assert prune(model, method, batches(), device=SECOND).fingerprint() == plan.fingerprint()
        assert {parameter.device.index for parameter in model.parameters()} == {None}
    assert devices.moved
    assert_same_state(model, state(alone))


@pytest.mark.parametrize(
    "method",
    [
        Wanda(sparsity=0.5),
        Wanda(sparsity=0.5, block_fit=BlockFit(steps=2)),
        FLAP(ratio=0.3, repair=Bias()),
        Taylor(ratio=0.3),
        AFR(ratio=0.3),
    ],
    ids=str,
)
def test_so_do_those_that_stay_there(method: Any) -> None:
    """Without offload."""
    model, alone = even_model("llama"), even_model("llama")
    plan = prune(alone, method, batches())
    with second_device():
        assert prune(model, method, batches(), device=SECOND).fingerprint() == plan.fingerprint()
    assert_same_state(model, state(alone))


def test_the_second_device_is_one() -> None:
    """What is made of its tensors is there; what mixes both raises, but for copies."""
    with second_device() as devices:
        here = torch.ones(3)
        there = here.to(SECOND)
        assert devices.moved == 12
        assert {t.device for t in (there + 1, there[1:], torch.zeros_like(there))} == {SECOND}
        assert {t.device for t in (here, there.cpu(), there.to("cpu"))} == {torch.device("cpu")}
        assert there.to(SECOND) is there
        assert not there.is_cpu
        for mixed in (
            lambda: here + there,
            lambda: there.mul_(here),
            lambda: torch.dot(here, there),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        linear = torch.nn.Linear(3, 2, bias=False)
        linear.weight.data = linear.weight.data.to(SECOND)
        with pytest.raises(RuntimeError, match="same device"):
            linear(here)
        (gradient,) = torch.autograd.grad(linear(there).sum(), linear.weight)
        assert gradient.device == SECOND
        assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2]
        assert torch.equal(torch.empty(3).copy_(there), here)
