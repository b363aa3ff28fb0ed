"""Gradients of feature norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune.evidence import Feature, TaskLoss
from lightning_prune.evidence.objective import polar


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5), (1, 4)])
def test_the_polar_factor_is_u_v(shape: tuple[int, int]) -> None:
    """Of the singular value decomposition, for wide and tall matrices."""
    matrix_TK = random(*shape)
    u, _, v = torch.linalg.svd(matrix_TK, full_matrices=False)
    torch.testing.assert_close(polar(matrix_TK), u @ v, rtol=1e-4, atol=1e-5)


def test_repeated_and_vanishing_singular_values_do_no_harm() -> None:
    """Where the derivative of the singular values is infinite, and where there is nothing."""
    torch.testing.assert_close(polar(3 * torch.eye(4)), torch.eye(4))
    assert not polar(torch.zeros(3, 5)).any()
    low_TK = random(6, 2) @ random(2, 9)  # of rank 2; the others are rounding errors
    u, _, v = torch.linalg.svd(low_TK, full_matrices=False)
    torch.testing.assert_close(polar(low_TK), u[:, :2] @ v[:2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(value: float) -> None:
    """It is no error in the middle of a decomposition."""
    assert polar(torch.tensor([[1.0, value], [0.0, 1.0]])).isnan().any()


def norm(kind: str, one_TK: torch.Tensor) -> torch.Tensor:
    if kind == "nuclear":
        return torch.linalg.svdvals(one_TK).mean()
    return one_TK.norm() if kind == "frobenius" else one_TK.abs().sum()


@pytest.mark.parametrize("kind", ["nuclear", "frobenius", "l1"])
def test_gradients_are_autograds_of_every_sequences_norm(kind: Any) -> None:
    """Sequence by sequence, without padding."""
    output_BTK = random(3, 6, 4).requires_grad_()
    keep_BT = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()
    for keep in (None, keep_BT):
        rows = keep_BT if keep is not None else torch.ones_like(keep_BT)
        pairs = zip(output_BTK, rows, strict=True)
        total = torch.stack([norm(kind, one[own]) for one, own in pairs]).sum()
        (expected_BTK,) = torch.autograd.grad(total, output_BTK)
        feature = Feature(kind=kind)
        found_BTK = feature.gradient(output_BTK, keep) / feature.scale
        torch.testing.assert_close(found_BTK, expected_BTK, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["nuclear", "frobenius", "l1"])
def test_gradients_do_not_vanish_in_float16(kind: Any) -> None:
    """In the type of the output, whose smallest numbers would be zero otherwise."""
    output_BTK = random(1, 300, 200)
    half = Feature(kind=kind).gradient(output_BTK.half(), None)
    exact = Feature(kind=kind).gradient(output_BTK, None)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.01 * float(exact.abs().max()))


def test_a_sequence_of_padding_has_no_gradient() -> None:
    """And no division by nothing."""
    for kind in ("nuclear", "frobenius", "l1"):
        feature: Any = Feature(kind=kind)  # type: ignore[arg-type]
        found_BTK = feature.gradient(random(1, 3, 4), torch.zeros(1, 3, dtype=torch.bool))
        assert not found_BTK.any()


def test_unknown_objectives_are_refused() -> None:
    """By what there is."""
    with pytest.raises(ValueError, match="TaskLoss: labels='last' .*'all', 'reference'"):
        TaskLoss(labels="last")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind='svd' .*'nuclear', 'frobenius', 'l1'"):
        Feature(kind="svd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="modules='mlp' .*'linear', 'all'"):
        Feature(kind="l1", modules="mlp")  # type: ignore[arg-type]


def test_the_loss_is_cross_entropy_place_by_place() -> None:
    """In fp32 whatever the type of the logits; 0 where nothing is asked."""
    logits_NK, target_N = random(4, 7).bfloat16(), torch.tensor([2, -100, 0, 6])
    found_N = TaskLoss().values(logits_NK, target_N)
    assert found_N.dtype == torch.float32
    for n, target in enumerate(target_N.tolist()):
        row = logits_NK[n].float()
        expected = 0.0 if target < 0 else float(row.exp().sum().log() - row[target])
        assert float(found_N[n]) == pytest.approx(expected, rel=1e-5)
