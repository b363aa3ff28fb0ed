"""Gram matrices of few tokens: the diagonal counts as it is, what stands beside it for less."""

from __future__ import annotations

import pytest
import torch

from lightning_prune import SparseGPT
from lightning_prune.evidence import CrossGram, Gram
from lightning_prune.methods.reconstruction import Problem
from lightning_prune.scores.wanda import wanda_score

CPU = torch.device("cpu")
WIDTH = 12


def tokens(count: int, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    """Features that go together, (1, T, I)."""
    generator = torch.Generator().manual_seed(seed)
    mixing_II = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return torch.randn(1, count, width, generator=generator) @ mixing_II


def gram_of(input_BTI: torch.Tensor) -> torch.Tensor:
    accumulator = Gram().begin(input_BTI.shape[-1], CPU)
    accumulator.update(input_BTI, None)
    result: torch.Tensor = accumulator.result()
    return result


@pytest.mark.parametrize("count", [1, 6, 24, 48, 200])
def test_products_of_two_features_count_by_the_tokens_that_are_there(count: int) -> None:
    """In proportion up to four for each feature; the mean squares are what they are."""
    input_BTI = tokens(count)
    mean_II = input_BTI[0].mT @ input_BTI[0] / count
    gram_II = gram_of(input_BTI)
    confidence = min(1.0, count / (4 * WIDTH))
    expected_II = (mean_II * confidence).diagonal_scatter(mean_II.diagonal())
    torch.testing.assert_close(gram_II, expected_II)
    assert bool((torch.linalg.eigvalsh(gram_II) > -1e-4).all())


@pytest.mark.parametrize("count", [6, 48])
def test_so_do_products_with_the_dense_model(count: int) -> None:
    """A fit that is not believed leaves the weights as they are."""
    input_BTI, dense_BTI, error_BTD = tokens(count), tokens(count, seed=1), tokens(count, 5, seed=2)
    accumulator = CrossGram().begin(WIDTH, CPU, adds=5)
    accumulator.update_pair(input_BTI, dense_BTI, error_BTD, None)
    paired = accumulator.result()
    confidence = min(1.0, count / (4 * WIDTH))
    cross_II = dense_BTI[0].mT @ input_BTI[0] / count
    expected_II = (cross_II * confidence).diagonal_scatter(cross_II.diagonal())
    torch.testing.assert_close(paired.cross_II, expected_II)
    torch.testing.assert_close(paired.gram_II, gram_of(input_BTI))
    error_DI = error_BTD[0].mT @ input_BTI[0] / count * confidence
    torch.testing.assert_close(paired.error_DI, error_DI)


@pytest.mark.parametrize("count", [4, 16, 64])
def test_solving_with_few_tokens_is_no_worse_than_wanda_on_others(count: int) -> None:
    """The output of a layer of 64 inputs, half of its weights gone, on tokens not calibrated on."""
    width = 64
    weight_OI = torch.randn(48, width, generator=torch.Generator().manual_seed(3))
    others_NI = tokens(4000, width, seed=4)[0]
    gram_II = gram_of(tokens(count, width))
    solved_OI = SparseGPT(sparsity=0.5).solve(Problem(weight_OI, gram_II, (48,), 0.5)).weight_OI
    score_OI = wanda_score(weight_OI, gram_II.diagonal().sqrt())
    gone = score_OI.argsort(dim=1)[:, : width // 2]
    wanda_OI = weight_OI.scatter(1, gone, 0.0)

    def lost(pruned_OI: torch.Tensor) -> float:
        return float((others_NI @ (weight_OI - pruned_OI).mT).square().mean())

    assert lost(solved_OI) <= 1.02 * lost(wanda_OI)
