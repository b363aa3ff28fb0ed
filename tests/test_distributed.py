"""The collective operations, in two processes and in one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_prune import distributed


class Unsendable(Exception):
    """Takes two arguments, and so cannot be read again from its one message."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def fail(error: Exception) -> None:
    raise error


def work(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    said = [str(distributed.once(lambda: f"from {rank}"))]
    for error in (ValueError("in one line"), Unsendable("not ", "sent")):
        try:
            distributed.once(lambda error=error: fail(error))
        except Exception as caught:
            said.append(f"{type(caught).__name__}: {caught}")
    (Path(folder) / f"said {rank}").write_text("\n".join(said))
    dist.destroy_process_group()


def test_what_fails_in_process_0_fails_in_all(tmp_path: Path) -> None:
    """And what it finds, all have; nobody waits for a process that is gone."""
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    said = [(tmp_path / f"said {rank}").read_text().splitlines() for rank in range(2)]
    assert said[0] == ["from 0", "ValueError: in one line", "Unsendable: not sent"]
    assert said[1] == ["from 0", "ValueError: in one line", "RuntimeError: Unsendable: not sent"]


def test_one_process_simply_does_it() -> None:
    """With its own error."""
    assert distributed.once(lambda: 1) == 1
    with pytest.raises(Unsendable):
        distributed.once(lambda: fail(Unsendable("a", "b")))
