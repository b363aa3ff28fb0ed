"""From a module in training to one plain model, wherever its weights are."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from lightning.pytorch.utilities import rank_zero_info
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.models.recovery.merged_files import merged_in_files, whole
from lightning_prune.models.recovery.nf4 import dequantise_linears
from lightning_prune.models.recovery.student import Model, Rebuild, Student, plain
from lightning_prune.models.recovery.zeros import check_zeros
from lightning_prune.plan import Plan

__all__ = ["merge", "merged_model", "rebuilder"]


def merged_model(module: Student) -> PreTrainedModel | None:
    """A plain copy of a module's model on the CPU, with its adapter merged and its zeros counted.

    Works for one process, DDP and FSDP2; every process has to call it. The module itself is left
    as it is and can be trained further. With FSDP2 and placement="checkpoint" the copy is in files,
    mapped into memory.

    Args:
        module: a `PrunableModule` whose model is loaded.

    Returns:
        The model in process 0, and None in the others.

    Raises:
        ValueError: see `merge`.
    """
    assert module.model is not None, "call load() first"
    sharded = module.rebuild is not None
    if module.rebuild is not None and module.placement == "checkpoint":
        structure = module.rebuild(None) if distributed.rank() == 0 else None
        merged = merged_in_files(module.model, structure, module.trainer.default_root_dir)
        return None if merged is None else _checked(merged, module.plans.merged).eval()
    state = _gathered(module.model) if sharded else module.model.state_dict()
    if distributed.rank() != 0:
        return None
    if not sharded:  # else gathering has made a copy
        state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
    rebuild = module.rebuild or rebuilder(module.model)
    merged = merge(rebuild(state), module.plans.merged)
    merged.eval()
    return merged


def merge(model: Model, plan: Plan | None = None) -> PreTrainedModel:
    """Merge a peft adapter into the weights, in place; a model without one is returned as it is.

    What was quantised for the adapter becomes plain weights, of the values that it was trained on.

    Raises:
        ValueError: the merged weights are not finite, or one that the plan masks is not zero.
    """
    merged = plain(model)
    if isinstance(model, PeftModel):
        dequantise_linears(merged, merged.dtype)
        merged = model.merge_and_unload(safe_merge=True)
    return _checked(merged, plan)


def _checked(merged: PreTrainedModel, plan: Plan | None) -> PreTrainedModel:
    """Count the zeros of a merged model."""
    if plan is not None and plan.mask_names:
        zeros = check_zeros(merged, plan, "after merging")
        rank_zero_info(f"The plan's {zeros:,} zeros are all in the merged model; 0 revived.")
    return merged


def rebuilder(model: Model) -> Rebuild:
    """A function that makes models of this structure from a state dict, at any later time.

    Given None in place of one, it makes them without weights.

    The structure is copied without its weights, so that it takes no memory, and stays plain when
    the model itself is sharded.
    """
    weightless = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()
    }
    structure = copy.deepcopy(model, weightless | _fixed(model))

    def rebuild(state: Mapping[str, torch.Tensor] | None) -> Model:
        rebuilt = copy.deepcopy(structure, _fixed(structure))
        if state is None:
            return rebuilt
        rebuilt.load_state_dict(state, assign=True)
        plain(rebuilt).tie_weights()
        return rebuilt.cpu()

    return rebuild


def _gathered(model: Model) -> dict[str, torch.Tensor]:
    """All weights of a sharded model, on the CPU, in process 0, and nothing in the others."""
    weights = {}
    for name, tensor in model.state_dict().items():
        gathered = whole(tensor)
        if distributed.rank() == 0:
            weights[name] = gathered.detach().to("cpu", copy=True)
    return weights


def _fixed(model: nn.Module) -> dict[int, torch.Tensor]:
    """Masks and quantised weights, which never change and need not be copied."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    return {id(value): value for value in attributes if isinstance(value, torch.Tensor)}
