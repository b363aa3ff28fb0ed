"""Pruning a model: what is collected, decided, repaired and cut, in this order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from lightning_prune import surgery
from lightning_prune.anatomy import Anatomy
from lightning_prune.methods.base import Method
from lightning_prune.pipeline.fit import check_fits
from lightning_prune.pipeline.provenance import provenance, work_of
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.pipeline.stages import Batch, Run
from lightning_prune.pipeline.unfinished import Unfinished
from lightning_prune.plan import Plan
from lightning_prune.sweep import evaluating, home_device, placement_of

__all__ = ["prune"]


def prune(
    model: nn.Module,
    method: Method,
    batches: Iterable[Batch] | None = None,
    device: torch.device | str | None = None,
    reuse: Reuse | None = None,
    resume: str | Path | Unfinished | None = None,
) -> Plan:
    """Prune a model in place and return what was decided.

    ```python
    plan = prune(model, Wanda(sparsity=0.5), batches)
    plan.mask("model.layers.0.mlp.up_proj.weight")  # bool, True = kept
    ```

    In several processes each one passes its own share of the batches; the statistics are added up,
    and all processes take the decisions of process 0.

    Args:
        model: a Hugging Face model of a known family, without adapters.
        method: a pruning method, e.g. `Wanda(sparsity=0.5)`.
        batches: calibration data that the family's task reads, as dicts with `input_ids` (B, T) or
            with `pixel_values`. Not needed by methods that look at weights only, nor with `plan=`.
        device: where blocks run, one at a time. Default: where the model is.
        reuse: what earlier calls on copies of this model, with these batches, have collected.
        resume: a folder in which every block that is finished is kept, so that the same call on
            the same model goes on where it was stopped; taken away at the end. (An `Unfinished`
            is left to its owner.)

    Raises:
        TypeError: the model is no module, or the method no method.
        ValueError: the model is quantised or not in memory, the method does not fit it, weights or
            scores are not finite, there is no calibration data or no such device, it is certain to
            take more memory than is free, nothing would be removed, or `resume` has blocks of
            another call. The model is then unchanged, unless the error came from a block in the
            middle of the sweep (where its weights are looked at), or of the repair.
    """
    if not isinstance(model, nn.Module) or not isinstance(method, Method):
        raise TypeError(
            "prune takes a model and a method, as in prune(model, Wanda(sparsity=0.5), batches); "
            f"got {model if isinstance(model, str) else type(model).__name__!r} and {method!r}"
        )
    anatomy = Anatomy(model)
    anatomy.check_weights()
    if method.plan is not None:
        plan = method.plan if isinstance(method.plan, Plan) else Plan.load(method.plan)
        made_by = plan.provenance.get("method", type(method).__name__)
        if made_by != type(method).__name__:
            raise ValueError(
                f"the plan was made by {made_by}; apply it with {made_by}(plan=…), not with "
                f"{type(method).__name__}"
            )
        surgery.apply(anatomy, plan)
        return plan
    method.check(anatomy)
    placement = placement_of(anatomy, _device(model, device))
    if method.calibrates and batches is None:
        raise ValueError(f"{method!r} needs calibration batches: {anatomy.task.form}")
    batches = () if batches is None else list(batches)
    if method.calibrates and reuse is None:
        check_fits(placement, method, batches)
    unfinished: Unfinished | None = None
    if isinstance(resume, (str, Path)):
        unfinished = resume = Unfinished(resume, work_of(model, method, batches))
    run = Run(placement, method, reuse, resume)
    run.plan.provenance = provenance(model, method)  # of the model as it is before
    with evaluating(model), torch.no_grad(), placement.checking_weights():
        run.decide(batches)
    if not run.plan.removes_anything:
        raise ValueError(f"{method!r} removes nothing from this model; ask for more")
    if unfinished is not None:
        unfinished.clear()
    return run.plan


def _device(model: nn.Module, asked: torch.device | str | None) -> torch.device:
    if asked is None:
        return home_device(model)
    device = torch.device(asked)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(asked)!r}: torch finds no CUDA device here; leave it out")
    return device
