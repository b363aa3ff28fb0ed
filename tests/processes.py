"""A pair of processes that many tests share: started once, with everything imported once.

A case is a function at the top of a module of the tests. `Pair.run` calls it in both processes at
the same time, with the same arguments, and gives back what it returned in each. A process group
(gloo) is up; Lightning takes the processes for some that torchrun has started, so that in a case
`Trainer(accelerator="cpu", devices=2, strategy="ddp")` works as it stands.

    def total(numbers: list[int]) -> float:
        return float(distributed.sum_(torch.tensor(numbers[distributed.rank()])))

    def test_numbers_are_added_up(pair: Pair) -> None:
        assert pair.run(total, [1, 2]).results == [3, 3]

Tests that ask for the fixture `pair` form one group of pytest-xdist, and so have one pair with
`--dist loadgroup`; without it, every worker that needs a pair starts its own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "Pair"]

ROOT = Path(__file__).parents[1]
COUNT = 2
PATIENCE = 20.0
"""Seconds that a process is waited for when the other one has failed."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case, process by process.

    Attributes:
        results: what the case returned.
        printed: what the process printed on the way, errors and logs included.
    """

    results: list[Any]
    printed: list[str]


class Pair:
    """Two processes that run cases together; started when the first is to be run.

    Args:
        group: whether they form a process group.
    """

    def __init__(self, group: bool = True) -> None:
        self._group = group
        self._folder: Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []

    def run(self, case: Callable[..., Any], *arguments: Any, timeout: float = 240.0) -> Outcome:
        """Call a function in both processes, and wait for both.

        Args:
            case: at the top of a module that can be imported by its name.
            arguments: what can be pickled.
            timeout: seconds after which both are ended.

        Raises:
            RuntimeError: the case raised something, in one process or in both, or took too long;
                the message has the tracebacks, and what was printed where a process hangs. After
                anything but an error of both, the next case is run by a new pair.
        """
        if not self._processes:
            self._start()
        before = [log.stat().st_size for log in self._logs]
        for connection in self._connections:
            connection.send((case.__module__, case.__qualname__, arguments))
        answers = self._answers(time.monotonic() + timeout)
        printed = [
            log.read_bytes()[start:].decode(errors="replace")
            for log, start in zip(self._logs, before, strict=True)
        ]
        if None in answers:
            self.close()
        errors = [
            f"--- process {rank} ---\n{text}"
            for rank, answer in enumerate(answers)
            if (text := f"{printed[rank]}\n(no answer)" if answer is None else answer[1])
        ]
        if errors:
            raise RuntimeError("\n".join(errors))
        return Outcome([answer[0] for answer in answers], printed)

    def close(self) -> None:
        """End both processes."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes, self._connections = [], []
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    @property
    def _logs(self) -> list[Path]:
        assert self._folder is not None
        return [self._folder / f"{rank}.log" for rank in range(COUNT)]

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pair-"))
        for rank, log in enumerate(self._logs):
            ours, theirs = Pipe()
            with log.open("wb") as file, theirs:
                store = [str(self._folder / "store")] * self._group
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.processes", str(theirs.fileno()), *store],
                    cwd=ROOT,
                    env=os.environ | _torchrun(rank),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                )
            self._processes.append(process)
            self._connections.append(ours)

    def _answers(self, until: float) -> list[Any]:
        """Result and error of each process; None for one that is gone or hangs."""
        answers: list[Any] = [None] * COUNT
        waiting = list(self._connections)
        while waiting and (ready := wait(waiting, until - time.monotonic())):
            for connection in waiting[:]:
                if connection not in ready:
                    continue
                waiting.remove(connection)
                rank = self._connections.index(connection)
                with contextlib.suppress(EOFError, ConnectionResetError):
                    answers[rank] = connection.recv()
                if answers[rank] is None or answers[rank][1]:
                    until = min(until, time.monotonic() + PATIENCE)
        return answers


def _torchrun(rank: int) -> dict[str, str]:
    """What torchrun tells its processes."""
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "GROUP_RANK": 0,
        "WORLD_SIZE": COUNT,
        "LOCAL_WORLD_SIZE": COUNT,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 29500,  # not used: the process group is there before Lightning asks for it
        "TORCHELASTIC_RUN_ID": "pair",
        "OMP_NUM_THREADS": 1,
    }
    return {name: str(value) for name, value in told.items()}


def serve(connection: Connection, store: str | None) -> None:
    """Run the cases that are asked for, until the other end is closed."""
    warnings.simplefilter("ignore")
    if store is not None:
        _form_group(store)
    while True:
        try:
            module, name, arguments = connection.recv()
        except EOFError:
            break
        environment, argv = dict(os.environ), list(sys.argv)
        result, error = None, ""
        try:
            result = getattr(importlib.import_module(module), name)(*arguments)
        except BaseException:
            error = traceback.format_exc()
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = argv
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send((result, error))


def _form_group(store: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=int(os.environ["RANK"]),
        world_size=COUNT,
        timeout=timedelta(seconds=120),
    )


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), next(iter(sys.argv[2:]), None))
