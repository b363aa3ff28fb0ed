"""Scores brought to one scale."""

from __future__ import annotations

import statistics

import torch

from lightning_prune.selection import standardised
from tests.scores.by_hand import random


def test_standardised_features_have_mean_0_and_deviation_1() -> None:
    """By the deviation of a sample, as FLAP's code takes it; equal features are all 0."""
    score_I = random(30).double().exp()
    mean, deviation = statistics.fmean(score_I.tolist()), statistics.stdev(score_I.tolist())
    expected_I = ((score_I - mean) / deviation).float()
    torch.testing.assert_close(standardised([score_I])[0], expected_I)
    for width in (0, 1, 5):
        assert standardised([torch.full((width,), 3.0)])[0].tolist() == [0.0] * width


def test_standardising_is_over_all_tables_together() -> None:
    """Common mean and deviation; equal numbers become 0."""
    found = torch.cat(standardised([torch.tensor([1.0, 2.0]), torch.tensor([6.0])]))
    torch.testing.assert_close(found, torch.tensor([(x - 3) / 7**0.5 for x in (1.0, 2.0, 6.0)]))
    assert standardised([torch.full((3,), 2.0)])[0].tolist() == [0.0] * 3
    assert standardised([torch.ones(1)])[0].tolist() == [0.0]
