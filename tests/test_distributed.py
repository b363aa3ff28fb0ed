"""The collective operations, in two processes and in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_prune import distributed
from tests.fresh import Fresh
from tests.processes import Pair


class Unsendable(Exception):
    """Takes two arguments, and so cannot be read again from its one message."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def fail(error: Exception) -> None:
    raise error


def answers_of_once() -> list[str]:
    """What a process gets of the other's work, and of the other's errors."""
    rank = distributed.rank()
    answers = [distributed.once(lambda: f"from {rank}")]
    for error in (ValueError("in one line"), Unsendable("not ", "sent")):
        try:
            distributed.once(lambda error=error: fail(error))
        except Exception as caught:
            answers.append(f"{type(caught).__name__}: {caught}")
    return answers


def test_what_fails_in_process_0_fails_in_all(pair: Pair) -> None:
    """And what it finds, all have; nobody waits for a process that is gone."""
    first, second = pair.run(answers_of_once).results
    assert first == ["from 0", "ValueError: in one line", "Unsendable: not sent"]
    assert second == ["from 0", "ValueError: in one line", "RuntimeError: Unsendable: not sent"]


def answers_of_together() -> list[str]:
    """What a process gets of its own work, and of an error that only one of both has."""
    rank = distributed.rank()
    answers = [distributed.together(lambda: f"from {rank}"), distributed.given(f"of {rank}", 1)]
    for failing in (0, 1):
        try:
            distributed.together(lambda failing=failing: rank != failing or fail(ValueError("no")))
        except ValueError as caught:
            answers.append(f"{failing}: {caught}")
    return answers


def test_what_fails_in_one_process_fails_in_all(pair: Pair) -> None:
    """Whichever it is, where each does something of its own."""
    first, second = pair.run(answers_of_together).results
    assert first == ["from 0", "of 1", "0: no", "1: no"]
    assert second == ["from 1", "of 1", "0: no", "1: no"]


@pytest.mark.parametrize(
    ("processes", "costs", "owners"),
    [(1, [3, 1], [0, 0]), (2, [1, 5, 2, 2, 1], [1, 0, 1, 1, 0]), (4, [1, 1], [0, 1])],
)
def test_the_dearest_work_is_given_away_first(
    processes: int, costs: list[float], owners: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no process has much more than its part."""
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    assert distributed.shared_out(costs) == owners


LONGER = """
import os, time
from datetime import timedelta
import torch.distributed as dist
from lightning_prune import distributed

rank = 0 if os.fork() else 1
where, patience = f"file://{os.getcwd()}/store", timedelta(seconds=0.5)
dist.init_process_group("gloo", where, patience, rank=rank, world_size=2)
for _ in range(2):
    answer = distributed.once(lambda: time.sleep(1) or "done")
with open(f"answer-{rank}", "w") as file:
    file.write(answer)
"""


def test_work_of_process_0_may_take_longer_than_the_group_waits(
    fresh: Fresh, tmp_path: Path
) -> None:
    """Saving, merging and judging a large model take longer than a collective may."""
    done = fresh.run(LONGER, after="lightning_prune", cwd=tmp_path)
    answers = [path.read_text() for path in sorted(tmp_path.glob("answer-*"))]
    assert answers == ["done", "done"], done.stderr


def test_one_process_simply_does_it() -> None:
    """With its own error."""
    assert distributed.once(lambda: 1) == 1
    with pytest.raises(Unsendable, match="ab"):
        distributed.once(lambda: fail(Unsendable("a", "b")))


def test_a_single_process_needs_no_process_group() -> None:
    """Every operation leaves things as they are."""
    tensor = torch.tensor([1.0, 2.0])
    assert distributed.sum_(tensor) is tensor
    assert distributed.broadcast_(tensor) is tensor
    assert tensor.tolist() == [1, 2]
    distributed.barrier()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
