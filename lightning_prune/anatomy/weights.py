"""Weights that cannot be pruned as they are: quantised ones, and such as are not in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["check_in_memory", "check_numbers", "check_unquantised", "no_model", "quantisation"]

NUMBERS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

ADVICE = (
    "prune the model from before, in 16 or 32 bits a weight, then quantise what is saved (QLoRA "
    "quantises by itself after pruning)"
)


def quantisation(config: Any) -> str | None:
    """How a model is quantised, e.g. "gptq, 4 bits"; None: it is not.

    Args:
        config: the model's configuration, or the keys of its config.json.
    """
    settings = _entry(config, "quantization_config") or _entry(config, "compression_config")
    if not settings:
        return None
    bits = _entry(settings, "bits")
    for loaded in (4, 8):
        bits = loaded if _entry(settings, f"load_in_{loaded}bit") else bits
    method = _entry(settings, "quant_method") or ("bitsandbytes" if bits else "quantization_config")
    method = str(getattr(method, "value", method))
    return f"{method}, {bits} bits" if isinstance(bits, int) else method


def check_unquantised(name: str, config: Any) -> None:
    """Refuse a model whose configuration says that it is quantised.

    Args:
        name: of the model, as the message begins.
        config: its configuration, or the keys of its config.json.

    Raises:
        ValueError: it does.
    """
    if scheme := quantisation(config):
        raise ValueError(f"{name} is quantised already ({scheme}): {ADVICE}")


def check_numbers(name: str, linear: nn.Linear) -> None:
    """Refuse a Linear whose weight is not one floating-point number of 16 bits or more a place.

    Args:
        name: of the Linear.
        linear: one that may be quantised without a word of it in the model's configuration.

    Raises:
        ValueError: it holds something else.
    """
    weight, shape = linear.weight, (linear.out_features, linear.in_features)
    kind = type(weight.data)
    of_torch = kind.__module__.partition(".")[0] == "torch"
    if weight.dtype not in NUMBERS or tuple(weight.shape) != shape or not of_torch:
        raise ValueError(
            f"{name} is quantised already, with a weight of {shape[0]} x {shape[1]} as a "
            f"{kind.__name__} of {tuple(weight.shape)} and {weight.dtype}: {ADVICE}"
        )


def check_in_memory(model: nn.Module) -> None:
    """Refuse a model some of whose weights are elsewhere, and on the meta device here.

    Raises:
        ValueError: it has such weights, as with a device_map that leaves some to the disk.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"{name} is not in memory but on the meta device, as where a device_map or "
                "cpu_offload of accelerate leaves weights to the disk or the CPU. Pass a model "
                "that was loaded whole, by from_pretrained without device_map; with device='cuda' "
                "one block at a time goes to the GPU."
            )


def _entry(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None)


def no_model(model: nn.Module) -> str:
    """What to pass in place of a module that is no Hugging Face model."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return f"{type(model).__name__} is a wrapper; pass the model that is in it, model.module"
    return (
        f"{type(model).__name__} is no Hugging Face model: it has no config with a model_type. "
        "Pass what AutoModelForCausalLM.from_pretrained gives, or register a table of your own "
        "architecture (lightning_prune.register_family) and give the module such a config"
    )
