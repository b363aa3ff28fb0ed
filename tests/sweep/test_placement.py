"""Modules go to the device and back; forwards and modes are put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.sweep import evaluating, home_device, on_device
from lightning_prune.sweep.lending import move
from lightning_prune.sweep.placement import replaced_forward

ELSEWHERE = torch.device("cpu", 0)
"""Compares unlike the CPU, so that modules are moved; and is the same."""


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Make what goes elsewhere a copy, as on another device; gives what was sent."""
    sent: list[torch.Tensor] = []
    plain = torch.Tensor.to

    def to(self: torch.Tensor, device: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if device != ELSEWHERE:
            return plain(self, device, *args, **kwargs)
        sent.append(self)
        return self.clone()

    monkeypatch.setattr(torch.Tensor, "to", to)
    return sent


def test_modules_go_and_come_back(copied: list[torch.Tensor]) -> None:
    """Out when the block is entered, home when it is left: the very numbers that were there."""
    module = nn.BatchNorm1d(2)
    before = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    with on_device([module], ELSEWHERE):
        away = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
        assert not set(away.values()) & set(before.values())
    assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == before
    assert len(copied) == len(before)


@torch.no_grad()
@pytest.mark.parametrize("in_place", [True, False])
def test_what_was_changed_is_written_where_it_was_or_not(
    copied: list[torch.Tensor], in_place: bool
) -> None:
    """A file that weights are mapped from keeps what it has."""
    module = nn.Linear(2, 3)
    home = module.weight.data
    before = home.clone()
    with on_device([module], ELSEWHERE, in_place):
        module.weight.fill_(7)
        assert torch.equal(home, before)
    assert (module.weight == 7).all()
    assert (module.weight.data_ptr() == home.data_ptr()) == in_place
    assert torch.equal(home, before) != in_place
    assert copied


@torch.no_grad()
def test_what_was_changed_there_comes_back_changed(copied: list[torch.Tensor]) -> None:
    """In place, or by a parameter of another shape; the others are not copied back."""
    module = nn.Linear(2, 3)
    assert module.bias is not None
    bias = module.bias.data_ptr()
    with on_device([module], ELSEWHERE):
        module.weight.fill_(7)
    assert (module.weight == 7).all()
    assert module.bias.data_ptr() == bias
    with on_device([module], ELSEWHERE):
        module.weight = nn.Parameter(module.weight[:, :1].clone())
    assert module.weight.tolist() == [[7], [7], [7]]


def test_tied_weights_are_moved_once(copied: list[torch.Tensor]) -> None:
    """And stay tied."""
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    with on_device([first, second], ELSEWHERE), torch.no_grad():
        assert len(copied) == 1
        second.weight.fill_(3)
    assert (first.weight == 3).all()
    assert first.weight is second.weight


def test_modules_that_are_there_are_not_moved(copied: list[torch.Tensor]) -> None:
    """No copy where none is needed."""
    with on_device([nn.Linear(2, 2)], torch.device("cpu")):
        assert copied == []


def test_modules_come_back_after_an_error(
    copied: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the second of them could not be moved."""
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    before, copying = (first.weight.data_ptr(), second.weight.data_ptr()), torch.Tensor.to

    def full(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if copied:
            raise RuntimeError("out of memory")
        return copying(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", full)
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        on_device([first, second], ELSEWHERE),
    ):
        pass
    assert (first.weight.data_ptr(), second.weight.data_ptr()) == before


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
