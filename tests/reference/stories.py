"""A small trained Llama, and what the original research codes made of it.

All numbers are of fp32 runs on 16 windows of 128 tokens.
"""

from __future__ import annotations

from functools import cache

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evaluation import perplexity
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from tests.copies import Template
from tests.shared import shared_path


@cache
def _stories(path: str) -> Template:
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return Template(model.eval())


def stories() -> nn.Module:
    """The reference model, ours to change."""
    model = _stories(str(shared_path("models/stories260k"))).copy()
    assert isinstance(model, nn.Module)
    return model


@cache
def _tensors(path: str) -> dict[str, torch.Tensor]:
    return load_file(path)


def golden(name: str) -> dict[str, torch.Tensor]:
    return _tensors(str(shared_path(f"golden/{name}.safetensors")))


def windows(name: str, size: int) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": part} for part in golden(name)["input_ids"].split(size)]


def pruned(method: PruningCallback) -> tuple[nn.Module, Plan]:
    """The model, pruned on the calibration windows in one batch, and the plan."""
    model = stories()
    return model, prune(model, method, windows("calibration", 16))


def perplexity_of(model: nn.Module) -> float:
    """On the evaluation windows."""
    return perplexity(model, windows("evaluation", 32))


def different_masks(plan: Plan, name: str) -> int:
    """In how many weights the plan and the golden masks differ."""
    masks = golden(name)
    assert set(plan.mask_names) == set(masks)
    return sum(int((plan.mask(n) != mask.bool()).sum()) for n, mask in masks.items())


def block_of(weight_name: str) -> int:
    """The number of the block that a weight is in."""
    return int(weight_name.split(".")[2])
