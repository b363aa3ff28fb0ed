"""Kinds of evidence that the package knows nothing of: one class each, and whatever uses it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lightning_prune import WandaSP, prune
from lightning_prune.allocation import Allocation, meet
from lightning_prune.anatomy import Anatomy, Block, Site, Task
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import (
    BlockEvidence,
    HeadObjective,
    InputEvidence,
    Objective,
    WeightEvidence,
)
from lightning_prune.methods.blocks import BlockPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.selection import keep_globally, keep_per_row
from lightning_prune.sweep import collect
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.sweep.helpers import block_inputs, padded, split, states_of, tokens_of, traces
from tests.sweep.test_forward import site_norms
from tests.tiny import tiny_model

# --- gradients by other rules, of something else ---


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


# --- what blocks do ---


class Growth(BlockEvidence):
    """By how much a block makes what passes through it longer, to a power."""

    power: float = 1.0

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        return (after_BTD.norm(dim=-1) / before_BTD.norm(dim=-1)) ** self.power


class DropQuiet(PruningCallback, BlockPruning):
    """Drop the blocks of least growth, or of most with a negative power."""

    power: float = 1.0

    @property
    def evidence(self) -> Growth:
        return Growth(power=self.power, part=self.part)


BLOCKS = 5


def growths(model: nn.Module, power: float, span: int = 1) -> list[float]:
    """By hooks over the whole model; what the last block gives is read in front of the norm."""
    (batch,) = batches(size=4)
    states, last = block_inputs(model, batch), list[torch.Tensor]()
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: last.append(args[0]))
    with torch.no_grad():
        model(**batch, use_cache=False)
    handle.remove()
    norms = [hidden_BTD.double().norm(dim=-1) for hidden_BTD in [*states, *last]]
    pairs = zip(norms, norms[span:], strict=False)
    return [float(((after / before) ** power).mean()) for before, after in pairs]


@pytest.mark.parametrize("power", [1.0, -2.0])
@pytest.mark.parametrize("contiguous", [False, True])
def test_blocks_go_by_a_measure_from_outside(power: float, contiguous: bool) -> None:
    """Alone or together; its settings hold also where several blocks are measured as one."""
    model = tiny_model("llama", num_hidden_layers=BLOCKS)
    values = growths(model, power, span=2 if contiguous else 1)
    plan = prune(model, DropQuiet(count=2, power=power, contiguous=contiguous), batches())
    first = values.index(min(values))
    lowest = sorted(sorted(range(BLOCKS), key=lambda i: values[i] if i < len(values) else 1e9)[:2])
    assert sorted(plan.dropped) == ([first, first + 1] if contiguous else lowest)
    measured = {int(index): value for index, value in plan.provenance["importance"].items()}
    assert measured == pytest.approx(dict(enumerate(values)), rel=1e-4)


class ByGrowth(Allocation):
    """More from blocks that grow less."""

    evidence = Growth(power=2.0)

    def measured(self, block: Block, evidence: Mapping[str, Any]) -> list[float]:
        return [evidence["block"]]

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        return meet([-value for value in importance], budget, sizes, high=0.9)


def test_an_allocation_shares_by_a_measure_from_outside() -> None:
    """With a method of the package, and its repair."""
    model = even_model("llama")
    values = growths(model, 2.0)
    plan = prune(model, WandaSP(ratio=0.4, attention=False, allocation=ByGrowth()), batches())
    shares = ByGrowth().shares(0.4, [1, 1, 1], values)
    for index, kept in plan.blocks("neuron").items():
        assert abs(kept.removed - 24 * shares[index]) <= 1
    assert len(set(shares)) > 1


# --- what Linears read ---


class Clipped(InputEvidence):
    """The mean square of every input feature, after clipping."""

    limit: float = 100.0

    def start(self) -> None:
        self._squares_I = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        self._tokens = torch.zeros((), dtype=torch.float64)

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        input_NI = input_BTI.flatten(0, -2) if keep_BT is None else input_BTI[keep_BT]
        clipped_NI = input_NI.double().clamp(-self.limit, self.limit)
        self._squares_I += clipped_NI.square().sum(dim=0).to(self.device)
        self._tokens += len(input_NI)

    @property
    def sums(self) -> list[torch.Tensor]:
        return [self._squares_I, self._tokens]

    def result(self) -> torch.Tensor:
        return (self._squares_I / self._tokens).float()


class ByClipped(PruningCallback, WeightPruning):
    """Wanda's score by clipped inputs."""

    limit: float = 1.0

    @property
    def evidence(self) -> Clipped:
        return Clipped(limit=self.limit)

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        return site.module.weight.detach().abs() * evidence.sqrt()


@pytest.mark.parametrize("propagate", ["block", "layer", "none"])
def test_inputs_are_heard_by_a_statistic_from_outside(propagate: Any) -> None:
    """Without a limit that anything reaches it is Wanda; with one it is not."""
    model, batch = tiny_model("llama"), padded("left")
    norms = site_norms(model, batch)
    method = ByClipped(sparsity=0.5, limit=1e6, propagate=propagate)
    plan = prune(tiny_model("llama"), method, split(batch, 2))
    name = "model.layers.0.self_attn.q_proj"
    score_OI = model.get_parameter(f"{name}.weight").detach().abs() * norms[name]
    assert torch.equal(plan.mask(f"{name}.weight"), keep_per_row(score_OI, 0.5))
    clipped = prune(
        tiny_model("llama"), ByClipped(sparsity=0.5, limit=0.5, propagate=propagate), [batch]
    )
    assert not torch.equal(clipped.mask(f"{name}.weight"), plan.mask(f"{name}.weight"))
