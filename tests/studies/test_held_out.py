"""Windows of training text that nothing else has seen."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.studies.held_out import _passages, held_out_of


def test_trials_are_not_judged_by_the_text_that_chose_or_evaluates() -> None:
    """A window that shares a passage with one that is taken is left out."""
    text = torch.arange(400)
    taken = [{"input_ids": text[:64][None]}]
    training = [{"input_ids": text.view(-1, 40)}]
    found = held_out_of(training, taken, 3, 40)
    assert [int(one["input_ids"][0, 0]) for one in found] == [80, 120, 160]
    with pytest.raises(ValueError, match="8 windows that share nothing .* and 9 are asked for"):
        held_out_of(training, taken, 9, 40)
    assert len(_passages([1, 2, 3], 2)) == 2
