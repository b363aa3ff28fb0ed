"""What ResidualFit aims at."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.callbacks.weights.residual_fit import dense_target
from lightning_prune.evidence import PairedGram
from tests.scores.by_hand import random


@pytest.mark.parametrize("trust", [0.5, 1.0])
@pytest.mark.parametrize("adds", [True, False])
def test_dense_targets_do_best_what_the_dense_model_does(trust: float, adds: bool) -> None:
    """The ridge regression of dense outputs and residual error on the pruned inputs, by lstsq."""
    weight_OI, input_NI = random(3, 5).double(), random(40, 5, seed=1).double()
    dense_NI = input_NI + 0.3 * random(40, 5, seed=2).double()
    error_NO = random(40, 3, seed=3).double() if adds else torch.zeros(40, 3).double()
    paired = PairedGram(
        input_NI.T @ input_NI / 40,
        dense_NI.T @ input_NI / 40,
        error_NO.T @ input_NI / 40 if adds else None,
    )
    ridge = 0.1 * paired.gram_II.diagonal().mean()
    rows = torch.cat([input_NI, (40 * ridge).sqrt() * torch.eye(5).double()])
    wanted = torch.cat([dense_NI @ weight_OI.T + error_NO, (40 * ridge).sqrt() * weight_OI.T])
    best_OI = torch.linalg.lstsq(rows, wanted).solution.T
    found_OI = dense_target(weight_OI, paired, 0.1, trust)
    torch.testing.assert_close(found_OI, (1 - trust) * weight_OI + trust * best_OI)
