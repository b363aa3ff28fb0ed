"""A second device on the CPU: real values with a label, so that an operation on both raises.

Inside the context `SECOND` is a device like any other: `.to`, factories and `.data` put tensors
there, `tensor.device` says so, and one operation on tensors of both raises as CUDA's would. What an
operation makes lies where its tensors do; a number without axes may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["SECOND", "second_device"]

SECOND = torch.device("cpu", 1)
COPIES = ("aten::_to_copy", "aten::copy_", "aten::_copy_from")


class Labels(TorchDispatchMode):
    """Knows which memory is the second device's, and refuses what mixes both.

    Attributes:
        mixed: operations that have been refused, for what catches the error.
        moved: bytes that have gone from one to the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []
        self.moved = 0
        self._there: dict[int, StorageWeakRef] = {}  # kept, so that their keys are not used again

    def is_there(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._there

    def put(self, tensor: torch.Tensor, there: bool) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if there:
            self._there[storage._cdata] = StorageWeakRef(storage)
        else:
            self._there.pop(storage._cdata, None)
        return tensor

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        places = {self.is_there(tensor) for tensor in tensors if tensor.ndim}
        name = function._schema.name
        if len(places) > 1 and name not in COPIES:
            self.mixed.append(name)
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        known = {tensor.untyped_storage()._cdata for tensor in tensors}
        asked = kwargs.get("device")
        there = asked == SECOND if asked is not None else any(map(self.is_there, tensors))
        result = function(*args, **kwargs)
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor) and made.untyped_storage()._cdata not in known:
                self.put(made, there)
        return result


class Moves(TorchFunctionMode):
    """What Python sees of the second device: where tensors are, and how they get there."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels

    def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            real = function(*args)
            return SECOND if real.type == "cpu" and self.labels.is_there(args[0]) else real
        if function == torch.Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return function(*args) and not self.labels.is_there(args[0])
        if function is torch.Tensor.numpy and self.labels.is_there(args[0]):
            raise TypeError("can't convert a tensor of the second device to numpy")
        result = function(*args, **kwargs)
        if function is torch.Tensor.cpu:
            return self._moved(args[0], result, there=False)
        if function is torch.Tensor.to:
            for target in (*args[1:], *kwargs.values()):
                if isinstance(target, torch.Tensor):
                    return self._moved(args[0], result, self.labels.is_there(target))
                if isinstance(target, (str, torch.device)):
                    return self._moved(args[0], result, torch.device(target) == SECOND)
        return result

    def _moved(self, tensor: torch.Tensor, result: torch.Tensor, there: bool) -> torch.Tensor:
        """What `.to` gives: the tensor itself where nothing is asked for, else a copy."""
        if self.labels.is_there(tensor) == there:
            same = tensor.dtype == result.dtype
            return tensor if same else self.labels.put(result, there)
        self.labels.moved += tensor.nbytes
        return self.labels.put(result.clone() if _shares(tensor, result) else result, there)


def _shares(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata


@contextmanager
def second_device() -> Iterator[Labels]:
    """Context in which there is a second device, `SECOND`."""
    backward = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        with moves:  # PyTorch switches it off for the function that calls this, hooks included
            return backward(*args, **kwargs)

    with Labels() as labels, Moves(labels) as moves, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "_engine_run_backward", run_backward)
        yield labels
