"""Pruning in rounds: a part of the budget at a time, survivors scored anew, under a gate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import nn

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy
from lightning_prune.checks import check_choice
from lightning_prune.evaluation import perplexity
from lightning_prune.methods.units import UnitPruning
from lightning_prune.pipeline.provenance import provenance
from lightning_prune.pipeline.recovery import Recovery
from lightning_prune.pipeline.round_budget import RoundBudget, due
from lightning_prune.pipeline.run import prune
from lightning_prune.plan import Plan, joined
from lightning_prune.tokens import IGNORED

__all__ = ["Gate", "Round", "check_rounds", "prune_in_rounds"]

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Gate:
    """How high the perplexity on validation text may get, and what happens when it gets higher.

    Attributes:
        max_perplexity: the highest perplexity.
        max_increase: the highest perplexity, in multiples of the dense model's.
        on_gate: "rollback" restores the model from before the round that went over, bit for bit;
            "stop" keeps that round. Neither goes on.

    Raises:
        ValueError: there is no such action, or no model could pass.
    """

    max_perplexity: float | None = None
    max_increase: float | None = None
    on_gate: Literal["rollback", "stop"] = "rollback"

    def __post_init__(self) -> None:
        check_choice("on_gate", self.on_gate, ("rollback", "stop"))
        for name, least in (("max_perplexity", 1.0), ("max_increase", 1.0)):
            value = getattr(self, name)
            if value is not None and not value > least:
                raise ValueError(
                    f"{name}={value}; it must be more than {least:g}"
                    + (", as 1.5 for half as much again" if name == "max_increase" else "")
                )

    @property
    def asked(self) -> bool:
        """Whether anything is limited."""
        return self.max_perplexity is not None or self.max_increase is not None

    def limit(self, dense: float) -> float:
        """The highest perplexity that passes."""
        limits = [math.inf if self.max_perplexity is None else self.max_perplexity]
        if self.max_increase is not None:
            limits.append(self.max_increase * dense)
        return min(limits)


@dataclass(frozen=True)
class Round:
    """What one round has come to.

    Attributes:
        number: from 1.
        ratio: fraction of the parameters of all units that is gone.
        parameters: of the whole model.
        perplexity: on the validation text; None without one.
        kept: False if the round was taken back.
    """

    number: int
    ratio: float
    parameters: int
    perplexity: float | None
    kept: bool = True

    def __str__(self) -> str:
        """The round in one line: what is gone, what is left, and the perplexity."""
        line = f"round {self.number}: {self.ratio:.1%} gone, {self.parameters:,} parameters"
        if self.perplexity is not None:
            line += f", perplexity {self.perplexity:.2f}"
        return line + (", over the gate: taken back" if not self.kept else "")


def check_rounds(anatomy: Anatomy, method: UnitPruning, rounds: int) -> None:
    """Refuse what cannot be done in rounds, before anything expensive.

    Raises:
        ValueError: the method does not cut units, or a round would remove nothing.
    """
    if not isinstance(method, UnitPruning) or method.plan is not None:
        raise ValueError(
            f"{method!r} cannot go in rounds: a method that cuts units does, such as FLAP, with "
            "ratio or parameters, and without a plan"
        )
    if rounds < 1:
        raise ValueError(f"rounds={rounds}; at least 1 is needed")
    method.check(anatomy)
    try:
        RoundBudget(anatomy, method, rounds).method(anatomy, 1).check(anatomy)
    except ValueError as error:
        raise ValueError(f"rounds={rounds} are too many: of the first, {error}") from error


def prune_in_rounds(
    model: nn.Module,
    method: UnitPruning,
    batches: Iterable[Batch] | None,
    rounds: int,
    validation: Iterable[Batch] | None = None,
    gate: Gate | None = None,
    recovery: Recovery | None = None,
    device: torch.device | str | None = None,
    told: Callable[[Round], None] | None = None,
) -> Plan:
    """Prune a model in place, a part of the budget at a time; survivors are scored anew.

    After round k of n, k/n of the budget is gone, and of the share that an allocation gives each
    block of the dense model; the last round meets both. With a gate, the
    validation text takes part in a decision: judge the result by another one.

    ```python
    plan = prune_in_rounds(
        model, FLAP(ratio=0.5), batches, rounds=4,
        validation=validation, gate=Gate(max_increase=1.5),
    )
    plan.provenance["rounds"]  # ratio, parameters and perplexity after each
    ```

    In several processes each one passes its own share of all batches.

    Args:
        model: a Hugging Face causal LM of a known family, without adapters.
        method: one that cuts units, with `ratio` or `parameters`.
        batches: calibration data, as for `prune`; read once a round.
        rounds: how many; a round in which no whole unit is due is left out.
        validation: text to measure each round on.
        gate: when to stop. To go back takes one copy of the model, where the model is.
        recovery: training after each round. All weights become part of the plan then.
        device: where blocks run.
        told: called in every process after each round.

    Raises:
        ValueError: as in `prune`; the method cannot go in rounds; there is a gate and no
            validation text; or the first round is taken back, so that nothing was removed.
    """
    anatomy = Anatomy(model)
    anatomy.check_weights()
    check_rounds(anatomy, method, rounds)
    gate = gate or Gate()
    if gate.asked and validation is None:
        raise ValueError("a gate on perplexity needs validation batches")
    batches = None if batches is None else list(batches)
    text = None if validation is None else list(validation)
    budget, head = RoundBudget(anatomy, method, rounds), provenance(model, method)
    limit = gate.limit(_perplexity(model, text, device) or 0.0) if gate.asked else math.inf
    plans: list[Plan] = []
    done: list[Round] = []
    for number in range(1, rounds + 1):
        step = budget.method(Anatomy(model), number)
        if not due(step, Anatomy(model), last=number == rounds):
            continue
        before = copy.deepcopy(model) if gate.asked and gate.on_gate == "rollback" else None
        plan = prune(model, step, batches, device)
        if recovery is not None:
            recovery(model, None if device is None else torch.device(device))
            plan.corrected |= dict.fromkeys((name for name, _ in model.named_parameters()), "")
        reached = _perplexity(model, text, device)
        over = reached is not None and gate.asked and not reached <= limit
        gone, left = budget.gone(Anatomy(model)), sum(p.numel() for p in model.parameters())
        done.append(Round(number, gone, left, reached, kept=not (over and before is not None)))
        if told is not None:
            told(done[-1])
        if before is not None and over:
            _restore(model, before)
        else:
            plans.append(plan)
        if over:
            break
    if not plans:
        raise ValueError(
            f"the first of {rounds} rounds has perplexity {done[0].perplexity:.2f}, over the gate "
            f"of {limit:.2f}; it was taken back, and nothing is removed. Raise the gate, or take "
            "more and smaller rounds."
        )
    whole = reduce(joined, plans)
    state = model.state_dict()
    # A later round cut what an earlier one corrected.
    whole.set_corrected({name: state[name] for name in whole.corrected})
    whole.provenance = head | {"rounds": [_plain(round_) for round_ in done]}
    return whole


@torch.no_grad()
def _perplexity(
    model: nn.Module, batches: list[Batch] | None, device: torch.device | str | None
) -> float | None:
    """Over the windows of all processes; the same number in each."""
    if batches is None:
        return None
    task = Anatomy(model).task
    counts = [int((task.targets(batch) != IGNORED).sum()) for batch in batches]
    mine = [batch for batch, count in zip(batches, counts, strict=True) if count]
    nll = math.log(perplexity(model, mine, device)) * sum(counts) if mine else 0.0
    sums = torch.tensor([nll, sum(counts)], dtype=torch.float64)
    nll_and_count = distributed.broadcast_(distributed.sum_(sums))
    return float((nll_and_count[0] / nll_and_count[1]).exp())


def _restore(model: nn.Module, before: nn.Module) -> None:
    """Make a model what its copy is: weights, shapes, class and config."""
    model.__class__ = before.__class__
    model.__dict__.clear()
    model.__dict__.update(before.__dict__)


def _plain(round_: Round) -> dict[str, Any]:
    """A round as JSON can say it: it has no inf and no nan."""
    value = asdict(round_)
    if round_.perplexity is not None and not math.isfinite(round_.perplexity):
        value["perplexity"] = str(round_.perplexity)
    return value
