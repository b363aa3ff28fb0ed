"""Kinds of evidence that the package knows nothing of: one class each, and whatever uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import WandaSP, prune
from lightning_prune.allocation import Allocation, meet
from lightning_prune.anatomy import Block, Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import BlockEvidence, InputEvidence
from lightning_prune.methods.blocks import BlockPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.selection import keep_per_row
from tests.contract.cases import batches, even_model
from tests.sweep.helpers import block_inputs, padded, split
from tests.sweep.test_forward import site_norms
from tests.tiny import tiny_model

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
