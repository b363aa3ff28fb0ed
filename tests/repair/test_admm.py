"""ALPS against its equations written out, and against the authors' own results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lightning_prune.repair import alps, anneal
from lightning_prune.selection import Pattern, keep_n_of_m, keep_per_matrix, keep_per_row
from tests.repair.problems import (
    LINEARS,
    SETTINGS,
    golden,
    random_layer,
    refit,
    relative_error,
)

RULES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "matrix": lambda score_OI: keep_per_matrix(score_OI, 0.5),
    "row": lambda score_OI: keep_per_row(score_OI, 0.7),
    "2:4": lambda score_OI: keep_n_of_m(score_OI, Pattern(2, 4)),
}


def slow_alps(weight_OI, gram_II, project, patience):
    """The authors' loop in float64, with explicit inverses, and an exact solve at the end."""
    width = len(gram_II)
    damped_II = gram_II + 0.01 * gram_II.diagonal().mean() * torch.eye(width).double()
    norm_I = damped_II.diagonal() ** 0.5
    unit_II = damped_II / norm_I / norm_I[:, None]
    dense_OI = weight_OI * norm_I
    right_OI = dense_OI @ unit_II

    support_OI = project(dense_OI**2)
    kept = support_OI.sum().item()
    start_OI = dense_OI * support_OI
    d_OI, v_OI, rho, has_risen = start_OI, torch.zeros_like(start_OI), 0.1, False
    for t in range(300 * patience):
        inverse_II = torch.linalg.inv(unit_II + rho * torch.eye(width).double())
        b_OI = (right_OI - v_OI + rho * d_OI) @ inverse_II
        keep_OI = project((b_OI + v_OI / rho) ** 2)
        d_OI = (b_OI + v_OI / rho) * keep_OI
        v_OI = v_OI + rho * (b_OI - d_OI)
        if (t + 1) % 3 == 0:
            changes = (keep_OI != support_OI).sum().item()
            support_OI = keep_OI
            if changes / kept > 0.1:
                rho, has_risen = rho * 1.3 ** (1 / patience), True
            elif changes / kept > 0.005:
                rho, has_risen = rho * 1.2 ** (1 / patience), True
            elif changes and has_risen:
                rho = rho * 1.1 ** (1 / patience)
            elif changes:
                rho, d_OI, v_OI = max(rho / 5, 1e-4), start_OI, torch.zeros_like(start_OI)
            elif has_risen:
                break
            else:
                rho = max(rho / 5, 1e-4)
            if t >= 30 * patience and changes / kept < 3e-4:
                break
    solutions = []
    for support_OI in (project(b_OI**2), project(dense_OI**2)):
        new_OI = torch.zeros_like(weight_OI)
        for o, keep_I in enumerate(support_OI):
            new_OI[o, keep_I] = torch.linalg.solve(unit_II[keep_I][:, keep_I], right_OI[o, keep_I])
        change_OI = new_OI - dense_OI
        solutions.append((((change_OI @ unit_II) * change_OI).sum(), new_OI / norm_I, support_OI))
    return min(solutions, key=lambda solution: solution[0])[1:]


@pytest.mark.parametrize("patience", [1, 2])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(6, 20), (3, 44), (1, 8), (30, 64)], ids=str)
def test_equals_the_authors_loop(shape: tuple[int, int], rule: str, patience: int) -> None:
    """The same support, and the least-squares weights on it."""
    weight_OI, input_TI = random_layer(*shape)
    gram_II = input_TI.T @ input_TI
    project = RULES[rule]
    new_OI, keep_OI = alps(weight_OI, gram_II, project, patience=patience, dtype=torch.float64)
    slow_OI, slow_keep_OI = slow_alps(weight_OI, gram_II, project, patience)
    assert torch.equal(keep_OI, slow_keep_OI)
    torch.testing.assert_close(new_OI, slow_OI, rtol=0, atol=2e-3)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("linear", LINEARS)
def test_is_no_worse_than_the_authors_code(linear: str, setting: str) -> None:
    """mazumder-lab/ALPS 8af9e6b on three layers of a trained Llama; as many weights stay."""
    tensors = golden("alps_linear")
    weight_OI, gram_II = tensors[f"{linear}.dense"], tensors[f"{linear}.gram_fp64"]
    theirs_OI = tensors[f"{linear}.{setting}.alps"]
    new_OI, keep_OI = alps(weight_OI, gram_II, SETTINGS[setting])
    assert abs(int(keep_OI.sum()) - int((theirs_OI != 0).sum())) <= 1
    found, theirs = (relative_error(weight_OI, w_OI, gram_II) for w_OI in (new_OI, theirs_OI))
    assert found <= theirs


@pytest.mark.parametrize("linear", LINEARS)
def test_the_published_schedule_gives_the_authors_error(linear: str) -> None:
    """At 50% and 2:4, where ties of the last weight do not send it another way."""
    tensors = golden("alps_linear")
    weight_OI, gram_II = tensors[f"{linear}.dense"], tensors[f"{linear}.gram_fp64"]
    for setting in ("50", "2of4"):
        new_OI, _ = alps(weight_OI, gram_II, SETTINGS[setting], patience=1)
        theirs = relative_error(weight_OI, tensors[f"{linear}.{setting}.alps"], gram_II)
        found = relative_error(weight_OI, new_OI, gram_II)
        torch.testing.assert_close(found, theirs, rtol=1e-3, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_zeros_are_where_the_mask_says(rule: str) -> None:
    """The mask satisfies the rule's count, and every zero is exact."""
    weight_OI, input_TI = random_layer(6, 44)
    new_OI, keep_OI = alps(weight_OI.bfloat16(), input_TI.T @ input_TI, RULES[rule])
    assert new_OI.dtype == torch.float32
    assert torch.equal(new_OI != 0, keep_OI)
    assert keep_OI.sum() == RULES[rule](weight_OI.square()).sum()


@pytest.mark.parametrize("settings", [{"iterations": 1}, {"rho": 1e4}, {"rho": 1e-4}])
@pytest.mark.parametrize("seed", range(5))
def test_is_never_worse_than_its_start(seed: int, settings: dict[str, float]) -> None:
    """Cut short, or with a penalty out of place: least squares on the first support at least."""
    weight_OI, input_TI = random_layer(5, 24, seed)
    gram_II = input_TI.T @ input_TI
    keep_OI = RULES["matrix"]((weight_OI * gram_II.diagonal().sqrt()).square())
    start_OI = refit(weight_OI, keep_OI, gram_II, damping=1e-6)
    new_OI, _ = alps(weight_OI, gram_II, RULES["matrix"], damping=1e-6, **settings)
    found, start = (relative_error(weight_OI, w_OI, gram_II) for w_OI in (new_OI, start_OI))
    assert found <= start * (1 + 1e-5)


def test_dead_inputs_and_dead_layers_do_no_harm() -> None:
    """No NaN, and the rest is as good as if they were not there."""
    weight_OI, input_TI = random_layer(5, 24)
    input_TI[:, [3, 11]] = 0
    gram_II = input_TI.T @ input_TI
    alive_I = gram_II.diagonal() != 0
    new_OI, keep_OI = alps(weight_OI, gram_II, RULES["row"])
    assert keep_OI[:, alive_I].sum() >= keep_OI[:, ~alive_I].sum()
    assert relative_error(weight_OI, new_OI, gram_II) < 0.5
    new_OI, _ = alps(weight_OI, torch.zeros(24, 24), RULES["row"])
    assert new_OI.isfinite().all()


def test_nan_is_refused() -> None:
    """Before anything is solved."""
    with pytest.raises(ValueError, match="NaN or infinity"):
        alps(torch.ones(2, 3), torch.full((3, 3), float("nan")), RULES["row"])


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_annealing_comes_near_the_search(share: float) -> None:
    """A fixed schedule loses little against the adaptive one, and beats its own start by far."""
    generator = torch.Generator().manual_seed(0)
    mixed_NI = torch.randn(400, 48, generator=generator) @ torch.randn(48, 48, generator=generator)
    gram_II, weight_OI = mixed_NI.T @ mixed_NI, torch.randn(24, 48, generator=generator)

    def project(score_OI: torch.Tensor) -> torch.Tensor:
        return keep_per_row(score_OI, share)

    def error(new_OI: torch.Tensor) -> float:
        return float(relative_error(weight_OI, new_OI, gram_II))

    new_OI, keep_OI = anneal(weight_OI, gram_II, project)
    assert torch.equal(new_OI != 0, keep_OI)
    assert keep_OI.sum(dim=1).tolist() == [48 - int(48 * share)] * 24
    wanda_OI = keep_per_row(weight_OI.abs() * gram_II.diagonal().sqrt(), share)
    assert error(new_OI) < 1.5 * error(alps(weight_OI, gram_II, project)[0])
    assert error(new_OI) < 0.7 * error(refit(weight_OI, wanda_OI, gram_II))
