"""What a checkpoint of a CausalLM leaves out, and what is asked of one that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.trainer.states import TrainerFn
from peft import PeftModel

if TYPE_CHECKING:
    from lightning_prune.models.causal_lm import CausalLM

__all__ = ["complete", "reduce"]

PLAN, SEED = "pruning_plan", "training_seed"


def reduce(module: CausalLM, checkpoint: dict[str, Any]) -> None:
    """Note the plan and the seed and, with an adapter, leave the frozen weights out.

    A sharded model is saved whole.
    """
    checkpoint[PLAN], checkpoint[SEED] = _plan_of(module), module.seed
    if isinstance(module.model, PeftModel) and not module.sharded:
        for name in _frozen(module):
            checkpoint["state_dict"].pop(name)


def complete(module: CausalLM, checkpoint: dict[str, Any]) -> None:
    """Put the frozen weights back, and check that the checkpoint fits the run and the model.

    Raises:
        ValueError: it does not: another plan, or other names or shapes.
    """
    if module._trainer is not None and module.trainer.state.fn == TrainerFn.FITTING:
        _check_plan(_plan_of(module), checkpoint)
        module.seed = checkpoint.get(SEED)
    if module.sharded:
        return
    own, saved = module.state_dict(), checkpoint["state_dict"]
    if isinstance(module.model, PeftModel):
        saved.update({name: own[name] for name in _frozen(module) if name not in saved})
    wrong = [
        name
        for name in sorted(own.keys() | saved.keys())
        if name not in own or name not in saved or own[name].shape != saved[name].shape
    ]
    if wrong and module._trainer is not None and module.trainer.state.fn != TrainerFn.FITTING:
        raise ValueError(
            f"the checkpoint does not fit the model of path={module.path!r}: it has what a run has "
            "trained, and the model here is neither pruned nor adapted. Give the run's folder with "
            "the finished model as path, such as runs/mine/recovered, and no checkpoint."
        )
    if wrong:
        raise ValueError(
            f"the checkpoint does not fit the model: {len(wrong)} weights are missing, unknown "
            f"or of another shape, such as {wrong[0]}. Resume with the model, the adapter and "
            "the pruning plan that it was made with."
        )


def _check_plan(own: str | None, checkpoint: dict[str, Any]) -> None:
    saved = checkpoint.get(PLAN, own)
    if saved != own:
        raise ValueError(
            f"the checkpoint was made with {_said(saved)}, and this run has {_said(own)}. Resume "
            "with the methods, settings and calibration that it was made with, or give the method "
            "that run's plan (plan=<its folder>/plan); or start without the checkpoint."
        )


def _said(fingerprint: str | None) -> str:
    return "no pruning plan" if fingerprint is None else f"the pruning plan {fingerprint[:8]}"


def _plan_of(module: CausalLM) -> str | None:
    return None if module.plan is None else module.plan.fingerprint()


def _frozen(module: CausalLM) -> list[str]:
    parameters = module.named_parameters(remove_duplicate=False)
    return [name for name, parameter in parameters if not parameter.requires_grad]
