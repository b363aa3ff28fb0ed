"""How many bytes of tensors are alive while some code runs; on the meta device, without them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Fused", "LiveBytes"]


class LiveBytes(TorchDispatchMode):
    """Counts the tensors that are made inside the context, as long as each of them is there.

    Tensors from outside, and views of them, are not counted. What depends on the values of tensors
    on the meta device, which have none, is answered as where everything counts: true, or 1.

    Attributes:
        now: bytes that are there.
        peak: the most that there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation, and count what it makes."""
        kwargs = kwargs or {}
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                self._note(value, 0)
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return args[0].dtype == torch.bool or 1
        result = function(*args, **kwargs)
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._note(value, value.untyped_storage().nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def beyond(self, run: Callable[[], Any]) -> tuple[Any, int]:
        """What a call gives, and the most bytes during it beyond those that were there before."""
        before, self.peak = self.now, self.now
        result = run()
        return result, self.peak - before

    def _note(self, tensor: torch.Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = size
            self.now += size
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


class Fused(TorchFunctionMode):
    """Attention as the fused kernels do it, which hold no T x T product, on the meta device."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Anything but attention is run as it is."""
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **kwargs)
        query, key, value = args[:3]
        if key.shape[1] != query.shape[1]:
            groups = query.shape[1] // key.shape[1]
            key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(query, key, value, 0.0, False)[0]
