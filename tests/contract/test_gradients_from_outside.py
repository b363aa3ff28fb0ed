"""An objective of the head, and gradients by other rules, that the package knows nothing of."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lightning_prune import prune
from lightning_prune.anatomy import Anatomy, Site, Task
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import HeadObjective, Objective, WeightEvidence
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.selection import keep_globally
from lightning_prune.sweep import collect
from tests.contract.cases import assert_same_state, state
from tests.sweep.helpers import padded, split, states_of, tokens_of, traces
from tests.tiny import tiny_model


class LastLogit(HeadObjective):
    """How sure the model is of the last token of each sequence: its logit, times a factor."""

    factor: float = 1.0

    def targets(self, task: Task, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return task.targets(batch, "reference")

    def values(self, logits_NK: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        value_N = logits_NK.float().gather(1, target_N.clamp(min=0)[:, None])[:, 0]
        return self.factor * value_N * (target_N >= 0)


class Identity(nn.Module):
    """An activation that lets everything through."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class ThroughActivations(WeightEvidence):
    """w·g, where activations let everything through, forward and backward."""

    objective: Objective = LastLogit()

    inside: ClassVar[list[str]] = []

    @contextmanager
    def rules(self, model: nn.Module) -> Iterator[None]:
        modules: Any = [block.module for block in Anatomy(model).blocks]
        before = [module.mlp.act_fn for module in modules]
        self.inside.append("entered")
        try:
            for module in modules:
                module.mlp.act_fn = Identity()
            yield
        finally:
            for module, own in zip(modules, before, strict=True):
                module.mlp.act_fn = own
            self.inside.append("left")

    def start(self) -> None:
        self._sum_OI = torch.zeros_like(self.weight_OI, dtype=torch.float64)

    def update(self, gradient_OI: torch.Tensor) -> None:
        self._sum_OI += gradient_OI

    def complete(self, total: float) -> None:
        self.reduce()
        self._sum_OI /= total

    @property
    def sums(self) -> list[torch.Tensor]:
        return [self._sum_OI]

    def result(self) -> torch.Tensor:
        return (self.weight_OI.double() * self._sum_OI).float()


class ByLogit(PruningCallback, WeightPruning):
    """Zero the weights that the last logits would miss least, compared across all blocks."""

    evidence = ThroughActivations()
    own_scope = "global"

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        return evidence.abs()


def logit_products(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same by plain autograd on a copy without activations."""
    model = copy.deepcopy(model).requires_grad_()
    for layer in model.model.layers:
        layer.mlp.act_fn = Identity()
    logits_BTV = model(**batch, use_cache=False).logits
    last_B = [int(row.nonzero().max()) for row in tokens_of(batch)]
    chosen = [logits_BTV[b, t, batch["input_ids"][b, t]] for b, t in enumerate(last_B)]
    torch.stack(chosen).mean().backward()
    return {n: (p * p.grad).detach() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("offload", [False, True], ids=["whole", "by block"])
@pytest.mark.parametrize("size", [1, 3])
def test_gradients_are_taken_by_its_rules_and_of_its_objective(size: int, offload: bool) -> None:
    """By autograd on a model that has those rules; the model itself has its own again."""
    model, batch = tiny_model("llama"), padded("left")
    before, expected = traces(model), logit_products(model, batch)
    activations = [layer.mlp.act_fn for layer in model.model.layers]
    plan = prune(
        model, ByLogit(sparsity=0.37, keep_scores=True, offload=offload), split(batch, size)
    )
    for name in plan.mask_names:
        limit = 1e-5 * float(expected[name].abs().max())
        score_OI = plan.scores("weight", name)
        torch.testing.assert_close(score_OI, expected[name].abs(), rtol=1e-3, atol=limit)
    scores = {name: plan.scores("weight", name) for name in plan.mask_names}
    for name, keep_OI in keep_globally(scores, 0.37).items():
        assert torch.equal(plan.mask(name), keep_OI)
    assert traces(model) == before
    assert [layer.mlp.act_fn for layer in model.model.layers] == activations


def test_settings_of_an_objective_reach_the_sweep() -> None:
    """An accumulator has the settings of the request that it comes from."""
    states = states_of(tiny_model("llama"), split(padded("left"), 2))

    def found(factor: float) -> dict[str, torch.Tensor]:
        request = ThroughActivations(objective=LastLogit(factor=factor))
        sweep = collect(states, request, states.anatomy.blocks, "none")
        return {name: value.clone() for _, results in sweep for name, value in results.items()}

    once, more = found(1.0), found(4.0)
    for name in once:
        torch.testing.assert_close(more[name], 4 * once[name], rtol=1e-6, atol=0)


class Failing(ThroughActivations):
    """Cannot add anything up."""

    def update(self, gradient_OI: torch.Tensor) -> None:
        raise RuntimeError("no memory for sums")


@pytest.mark.parametrize("offload", [False, True], ids=["whole", "by block"])
@pytest.mark.parametrize("ends", ["with an error of its own", "with the method's", "early"])
def test_its_rules_are_left_however_the_sweep_ends(ends: str, offload: bool) -> None:
    """As often as they were entered; the next sweep finds the model as it was."""
    model, batch = tiny_model("llama"), padded("left")
    activations = [layer.mlp.act_fn for layer in model.model.layers]
    before, weights = traces(model), state(model)
    ThroughActivations.inside.clear()
    if ends == "early":
        states = states_of(model, split(batch, 2), offload)
        sweep = collect(states, ThroughActivations(), states.anatomy.blocks, "none")
        next(sweep)
        assert model.model.layers[0].mlp.act_fn is not activations[0], "it is in the middle"
        sweep.close()
    else:

        class Broken(ByLogit):
            evidence = Failing() if ends == "with an error of its own" else ThroughActivations()

            def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("no score for this")

        with pytest.raises(RuntimeError, match="no memory for sums|no score for this"):
            prune(model, Broken(sparsity=0.5, offload=offload), split(batch, 2))
    assert ThroughActivations.inside == ["entered", "left"]
    assert [layer.mlp.act_fn for layer in model.model.layers] == activations
    assert traces(model) == before
    assert_same_state(model, weights)
