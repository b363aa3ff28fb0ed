"""Memory that is counted on the meta device is that of the same work with numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lightning_prune import ALPS, Ablation, ResidualFit, SparseGPT
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import (
    CrossGram,
    Feature,
    Gradients,
    Gram,
    InputMoments,
    InputNorm,
    PairedEvidence,
)
from lightning_prune.evidence.cross_gram import PairedGram
from lightning_prune.methods.reconstruction import Problem
from lightning_prune.repair import LeastSquares
from lightning_prune.sweep.live import LiveBytes
from lightning_prune.sweep.rehearsal import Rehearsal
from tests.tiny import MODEL_TYPES, tiny_model


def rehearsal(model_type: str, batch: int = 4, tokens: int = 24) -> Rehearsal:
    config = tiny_model(model_type).config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        ids = torch.zeros(batch, tokens, dtype=torch.long)
    return Rehearsal(Anatomy(model.eval()), {"input_ids": ids})


def test_tensors_are_counted_while_they_are_there() -> None:
    """Those from outside, and views, are not."""
    given = torch.ones(10)
    with LiveBytes() as live:
        kept = given * 2
        view = kept[:5]
        total, most = live.beyond(lambda: torch.add(given + 1, given + 2))
        del total
        assert (live.now, most) == (40, 120)
        del kept, view
        assert live.now == 0


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_block_takes_what_it_takes_with_numbers(model_type: str) -> None:
    """Of every family: while it runs, and for its pass back."""
    rehearsed = rehearsal(model_type)
    model = tiny_model(model_type)
    block, real = rehearsed.anatomy.blocks[0], Anatomy(model).blocks[0]
    run = rehearsed.run(block)
    states: dict[str, Any] = {}

    def note(module: Any, args: Any, kwargs: Any) -> None:
        states["args"], states["kwargs"] = args, kwargs

    handle = real.module.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        model(torch.zeros(4, 24, dtype=torch.long), use_cache=False)
    handle.remove()
    with torch.no_grad(), LiveBytes() as live:
        _, most = live.beyond(lambda: real.module(*states["args"], **states["kwargs"]))
    assert run.hidden == 4 * 24 * 32 * 4
    assert run.forward == pytest.approx(most, rel=0.2)
    assert run.kept >= run.forward / 2
    assert set(run.waiting) == set(block.inputs())


def test_evidence_takes_its_sums() -> None:
    """A number, or a matrix, in float64 for each input feature."""
    rehearsed = rehearsal("llama")
    assert rehearsed.evidence(InputNorm(), 32).sums == 8 * 32
    assert rehearsed.evidence(InputMoments(), 32).result == 3 * 4 * 32
    gram = rehearsed.evidence(Gram(), 32)
    assert gram.sums == 8 * 32**2 + 8  # and the number of tokens
    assert gram.result == 4 * 32**2
    pair = rehearsed.evidence(CrossGram(), 22, adds=32)
    assert pair.sums == 2 * 8 * 22**2 + 8 * 32 * 22 + 8
    peak, sums = rehearsed.backward(rehearsed.anatomy.blocks[0], Gradients())
    weights = sum(s.module.weight.numel() for s in rehearsed.anatomy.blocks[0].sites)
    assert 8 * weights <= sums <= 8 * weights + 100
    assert peak > sums


class Drift(PairedEvidence):
    """The mean over tokens of what the dense model has, less what the pruned one has."""

    def start(self) -> None:
        """Summed over no token."""
        self._drift_I = torch.zeros(self.width, dtype=torch.float64, device=self.device)

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Alone it says nothing."""

    def update_pair(
        self,
        input_BTI: torch.Tensor,
        dense_BTI: torch.Tensor,
        error_BTD: torch.Tensor | None,
        keep_BT: torch.Tensor | None,
    ) -> None:
        """Add one batch of both models."""
        self._drift_I += (dense_BTI.double() - input_BTI).sum(dim=(0, 1))

    @property
    def sums(self) -> list[torch.Tensor]:
        """The sum."""
        return [self._drift_I]

    def result(self) -> torch.Tensor:
        """The sum, (I,)."""
        return self._drift_I


def test_paired_evidence_from_outside_counts_as_what_it_does() -> None:
    """Both models' inputs are fed to it: two float64 matrices while a batch is added, (B, T, I)."""
    rehearsed = rehearsal("llama")
    taken = rehearsed.evidence(Drift(), 22, adds=32)
    assert taken.sums == taken.sent == 8 * 22
    assert taken.update >= 2 * 8 * 4 * 24 * 22


def test_gradients_that_begin_at_modules_take_their_outputs() -> None:
    """Twice the output of every Linear, beside what the pass back takes."""
    rehearsed = rehearsal("llama")
    block = rehearsed.anatomy.blocks[0]
    outputs = sum(site.module.out_features for site in block.sites)
    behind, held = rehearsed.backward(block, Gradients())
    inside = rehearsed.backward(block, Gradients(objective=Feature()))
    assert inside == (behind + 2 * 4 * 24 * outputs * 4, held)


@pytest.mark.parametrize(
    "method",
    [
        SparseGPT(sparsity=0.5),
        SparseGPT(pattern="2:4"),
        Ablation(sparsity=0.5),
        ALPS(sparsity=0.5),
        ResidualFit(sparsity=0.5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(256, 256), (512, 256), (128, 512)])
def test_what_a_method_says_that_it_takes_is_what_it_takes(
    method: Any, shape: tuple[int, int]
) -> None:
    """Within a quarter, for layers of several forms; the weights in fp32 are among it."""
    outputs, inputs = shape
    input_NI = torch.randn(2 * inputs, inputs, generator=torch.Generator().manual_seed(0))
    gram_II = input_NI.mT @ input_NI / len(input_NI)
    weight_OI = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    evidence: Any = gram_II
    if isinstance(method.evidence, CrossGram):
        evidence = PairedGram(gram_II, gram_II.clone(), torch.zeros(shape))
    problem = Problem(weight_OI, evidence, (outputs,), 0.5)
    with torch.no_grad(), LiveBytes() as live:
        _, most = live.beyond(lambda: method.solve(problem))
    assert method.solving is not None
    said = method.solving.per_weight * outputs * inputs + method.solving.per_square * inputs**2
    assert said == pytest.approx(most + 4 * outputs * inputs, rel=0.25)


@pytest.mark.parametrize("kept", [1.0, 0.5])
@pytest.mark.parametrize("trust", [0.0, 0.5])
def test_what_a_repair_says_that_it_takes_is_what_it_takes(kept: float, trust: float) -> None:
    """Or a third more."""
    outputs, inputs = 256, 512
    input_NI = torch.randn(2 * inputs, inputs, generator=torch.Generator().manual_seed(0))
    gram_II = input_NI.mT @ input_NI / len(input_NI)
    evidence: Any = PairedGram(gram_II, gram_II.clone(), None) if trust else gram_II
    keep_I = torch.arange(inputs) < kept * inputs
    repair, weight_OI = LeastSquares(trust=trust), torch.randn(outputs, inputs)
    with torch.no_grad(), LiveBytes() as live:
        _, most = live.beyond(lambda: repair.fix(weight_OI, None, keep_I, evidence))
    assert most <= repair.working(outputs, inputs, kept) <= 1.35 * most
