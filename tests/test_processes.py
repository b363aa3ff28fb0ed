"""The pair of processes that tests share."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from lightning_prune import distributed
from tests.process_cases import leave_one_behind, rank
from tests.processes import Pair


def total(numbers: list[int]) -> tuple[int, int]:
    """Which process this is, and the sum over both."""
    print(f"process {distributed.rank()} of {distributed.world_size()}")
    return os.getpid(), int(distributed.sum_(torch.tensor(numbers[distributed.rank()])))


def fail() -> None:
    raise ValueError(f"of process {distributed.rank()}")


def change_the_process() -> None:
    os.environ["PL_GLOBAL_SEED"] = "7"
    sys.argv.append("fit")


def settings() -> tuple[str | None, int]:
    return os.environ.get("PL_GLOBAL_SEED"), len(sys.argv)


def test_cases_run_in_the_same_two_processes(pair: Pair) -> None:
    """Each gives back what it returned and what it printed."""
    outcomes = [pair.run(total, [1, 2]), pair.run(total, [3, 4])]
    assert [result[1] for outcome in outcomes for result in outcome.results] == [3, 3, 7, 7]
    processes = [[result[0] for result in outcome.results] for outcome in outcomes]
    assert processes[0] == processes[1]
    assert len({os.getpid(), *processes[0]}) == 3
    assert outcomes[0].printed == ["process 0 of 2\n", "process 1 of 2\n"]


def test_an_error_of_a_case_is_told_with_its_process(pair: Pair) -> None:
    """Of both, if both fail; and the next case runs."""
    with pytest.raises(RuntimeError, match="(?s)process 0.*of process 0.*process 1.*of process 1"):
        pair.run(fail)
    assert pair.run(total, [1, 2]).results[0][1] == 3


def test_a_case_leaves_environment_and_arguments_as_they_were(pair: Pair) -> None:
    """As for a process of its own."""
    before = pair.run(settings).results
    pair.run(change_the_process)
    assert pair.run(settings).results == before


def test_a_process_that_waits_for_one_that_failed_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next case gets a new pair."""
    monkeypatch.setattr("tests.processes.PATIENCE", 0.2)
    pair = Pair(group=False)
    try:
        with pytest.raises(RuntimeError, match="(?s)gone.*process 1 ---.*no answer"):
            pair.run(leave_one_behind)
        assert pair.run(rank).results == [0, 1]
    finally:
        pair.close()
