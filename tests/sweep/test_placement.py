"""Modules go to the device and back; forwards and modes are put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.sweep import evaluating, home_device, on_device
from lightning_prune.sweep.placement import move, replaced_forward


class Traveller(nn.Linear):
    """Notes where it is sent."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.sent: list[str] = []

    def to(self, device: Any) -> Traveller:  # type: ignore[override]
        self.sent.append(str(device))
        return self


def test_modules_go_and_come_back() -> None:
    """Out when the block is entered, home when it is left."""
    module = Traveller()
    with on_device([module], torch.device("cpu", 0)):
        assert module.sent == ["cpu:0"]
    assert module.sent == ["cpu:0", "cpu"]


def test_modules_that_are_there_are_not_moved() -> None:
    """No copy where none is needed."""
    module = Traveller()
    with on_device([module], torch.device("cpu")):
        pass
    assert module.sent == []


def test_modules_come_back_after_an_error() -> None:
    """Also when the second of them could not be moved."""

    class Stuck(Traveller):
        def to(self, device: Any) -> Traveller:  # type: ignore[override]
            super().to(device)
            if str(device) != "cpu":
                raise RuntimeError("out of memory")
            return self

    first, second = Traveller(), Stuck()
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        on_device([first, second], torch.device("cpu", 0)),
    ):
        pass
    assert first.sent[-1] == second.sent[-1] == "cpu"


def test_home_is_where_the_first_tensor_lies() -> None:
    """Parameter, else buffer, else the CPU."""
    assert home_device(nn.Linear(1, 1, device="meta")).type == "meta"
    buffered = nn.Module()
    buffered.register_buffer("table", torch.ones(1, device="meta"))
    assert home_device(buffered).type == "meta"
    assert home_device(nn.Identity()).type == "cpu"


def test_forwards_are_put_back() -> None:
    """The class's own, or the one that somebody else had put in its place."""
    plain, wrapped = nn.Identity(), nn.Identity()
    wrapped.forward = lambda x: x + 100  # type: ignore[method-assign]

    def forward(index: int) -> Callable[[int], int]:
        return lambda x: x // (1 - x) + index

    with replaced_forward([plain, wrapped], forward):
        assert [plain(0), wrapped(0)] == [0, 1]
    assert [plain(1), wrapped(1)] == [1, 101]
    with pytest.raises(ZeroDivisionError), replaced_forward([plain, wrapped], forward):
        plain(1)
    assert [plain(1), wrapped(1)] == [1, 101]
    assert "forward" not in plain.__dict__


def test_every_module_gets_its_own_mode_back() -> None:
    """Training and evaluating modules side by side, also after an error."""
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1][0].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before
    with pytest.raises(TypeError, match="must be Tensor"), evaluating(model):
        model("no tensor")
    assert [module.training for module in model.modules()] == before


def test_nested_values_are_moved() -> None:
    """Tensors in tuples, lists and dicts; all else stays what it is."""
    one = torch.ones(1)
    moved = move({"a": (one, [one, None]), "b": "text", "c": 3}, torch.device("meta"))
    assert moved["a"][0].device.type == moved["a"][1][0].device.type == "meta"
    assert (moved["a"][1][1], moved["b"], moved["c"]) == (None, "text", 3)
