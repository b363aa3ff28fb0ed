"""What a Lightning checkpoint of a pruned module says and leaves out, and how it is read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_prune.models.plans import Plans
from lightning_prune.plan import Plan

__all__ = [
    "check_plan",
    "check_weights",
    "leave_frozen_out",
    "note",
    "plans_of",
    "seed_of",
]

PLAN, PLANS, SEED = "pruning_plan", "pruning_plans", "training_seed"

Checkpoint = dict[str, Any]


def note(checkpoint: Checkpoint, plans: Plans, seed: int | None) -> None:
    """Note the plans that the weights fit, by their fingerprints, and the seed of the training."""
    checkpoint[PLAN], checkpoint[SEED] = _fingerprint(plans.merged), seed
    checkpoint[PLANS] = [plan.fingerprint() for plan in plans]


def plans_of(checkpoint: Checkpoint) -> list[str] | None:
    """Fingerprints of the plans that the checkpoint was made with, in the order of their use.

    None: it does not say.
    """
    return checkpoint.get(PLANS)


def seed_of(checkpoint: Checkpoint) -> int | None:
    """The seed of the training that the checkpoint was made in."""
    return checkpoint.get(SEED)


def leave_frozen_out(checkpoint: Checkpoint, module: nn.Module) -> None:
    """Take the weights that are not trained out of the checkpoint."""
    for name in _frozen(module):
        checkpoint["state_dict"].pop(name)


def _fill_in_frozen(checkpoint: Checkpoint, module: nn.Module) -> None:
    """Put the module's own frozen weights where `leave_frozen_out` took them away."""
    state, saved = module.state_dict(), checkpoint["state_dict"]
    saved.update({name: state[name] for name in _frozen(module) if name not in saved})


def check_plan(checkpoint: Checkpoint, plan: Plan | None) -> None:
    """Refuse a checkpoint whose weights another plan cut or masked.

    Raises:
        ValueError: it is of another plan than the run.
    """
    planned = _fingerprint(plan)
    saved = checkpoint.get(PLAN, planned)
    if saved != planned:
        raise ValueError(
            f"the checkpoint was made with {_named(saved)}, and this run has {_named(planned)}. "
            "Resume with the methods, settings and calibration that it was made with, or give the "
            "method that run's plan (plan=<its folder>/plan); or start without the checkpoint."
        )


def check_weights(
    checkpoint: Checkpoint, module: nn.Module, path: str | None, resumes: bool, adapted: bool
) -> None:
    """Refuse a checkpoint whose weights are not those of the module, by name and shape.

    Args:
        checkpoint: of weights, all of them or all that are trained.
        module: pruned and adapted, if it is to be.
        path: where its model comes from, for the message.
        resumes: training goes on from the checkpoint; else it is validated, tested or the like.
        adapted: frozen weights were left out, and are put back.

    Raises:
        ValueError: a weight is missing, unknown or of another shape.
    """
    if adapted:
        _fill_in_frozen(checkpoint, module)
    wrong = _different(module.state_dict(), checkpoint["state_dict"])
    if wrong and not resumes:
        raise ValueError(
            f"the checkpoint does not fit the model of path={path!r}: it has what a run has "
            "trained, and the model here is neither pruned nor adapted. Give the run's folder with "
            "the finished model as path, such as runs/mine/recovered, and no checkpoint."
        )
    if wrong:
        raise ValueError(
            f"the checkpoint does not fit the model: {len(wrong)} weights are missing, unknown "
            f"or of another shape, such as {wrong[0]}. Resume with the model, the adapter and "
            "the pruning plan that it was made with."
        )


def _different(expected: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Names that are not in both, or of tensors with another shape."""
    return [
        name
        for name in sorted(expected.keys() | saved.keys())
        if name not in expected or name not in saved or expected[name].shape != saved[name].shape
    ]


def _named(fingerprint: str | None) -> str:
    return "no pruning plan" if fingerprint is None else f"the pruning plan {fingerprint[:8]}"


def _fingerprint(plan: Plan | None) -> str | None:
    return None if plan is None else plan.fingerprint()


def _frozen(module: nn.Module) -> list[str]:
    parameters = module.named_parameters(remove_duplicate=False)
    return [name for name, parameter in parameters if not parameter.requires_grad]
