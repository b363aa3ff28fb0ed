"""A pair of processes that many tests share: started once, with everything imported once.

A case is a function at the top of a module of the tests. `Pair.run` calls it in both processes at
the same time, with the same arguments, and gives back what it returned in each. A process group
(gloo) is up; Lightning takes the processes for some that torchrun has started, so that in a case
`Trainer(accelerator="cpu", devices=2, strategy="ddp")` works as it stands.

    def total(numbers: list[int]) -> float:
        return float(distributed.sum_(torch.tensor(numbers[distributed.rank()])))

    def test_numbers_are_added_up(pair: Pair) -> None:
        assert pair.run(total, [1, 2]).results == [3, 3]

Tests that ask for the fixture `pair` run in one worker of pytest-xdist, and so have one pair.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "Pair", "environment", "form_group"]

ROOT = Path(__file__).parents[1]
COUNT = 2
USED = (
    "lightning_prune.callbacks",
    "lightning_prune.commands.configured",
    "transformers.models.llama.modeling_llama",
    "peft",
)
"""What most cases need: imported once, before there are two processes."""
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
        group: whether they form a process group, and import the package before they part.
    """

    def __init__(self, group: bool = True) -> None:
        self._group = group
        self._folder: Path | None = None
        self._parent: subprocess.Popen[bytes] | None = None
        self._connections: list[Connection] = []

    def run(self, case: Callable[..., Any], *arguments: Any, timeout: float = 600.0) -> Outcome:
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
        if self._parent is None:
            self._start()
        before = [log.stat().st_size for log in self._logs]
        for connection in self._connections:
            _send(connection, (case.__module__, case.__qualname__, arguments))
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
        self._connections = []
        if self._parent is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._parent.pid, signal.SIGKILL)
            self._parent.wait()
            self._parent = None
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    @property
    def _logs(self) -> list[Path]:
        assert self._folder is not None
        return [_log(self._folder, rank) for rank in range(COUNT)]

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pair-"))
        for log in self._logs:
            log.touch()
        arguments = [str(self._folder), *["--group"] * self._group]
        self._parent, self._connections = started(__name__, COUNT, arguments)

    def _answers(self, until: float) -> list[Any]:
        """Result and error of each process; None for one that is gone or hangs."""
        answers: list[Any] = [None] * COUNT
        waiting = list(self._connections)
        while waiting and (ready := wait(waiting, until - time.monotonic())):
            for connection in [c for c in waiting if c in ready]:
                waiting.remove(connection)
                rank = self._connections.index(connection)
                with contextlib.suppress(EOFError, ConnectionResetError):
                    answers[rank] = _receive(connection)
                if answers[rank] is None or answers[rank][1]:
                    until = min(until, time.monotonic() + PATIENCE)
        return answers


def _send(connection: Connection, value: Any) -> None:
    """By pickle alone: torch would put tensors where the other end looks for them too late."""
    connection.send_bytes(pickle.dumps(value))


def _receive(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())


def _log(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.log"


# --- in the processes ---


def started(
    module: str, count: int, arguments: Sequence[str] = ()
) -> tuple[subprocess.Popen[bytes], list[Connection]]:
    """An interpreter that runs a module of the tests, and our ends of pipes to it.

    Args:
        module: its name; it is given the handles of its ends, and then the arguments.
        count: of pipes.
        arguments: what else it is told.
    """
    pipes = [Pipe() for _ in range(count)]
    handles = [theirs.fileno() for _, theirs in pipes]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, handles), *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        pass_fds=handles,
        start_new_session=True,  # so that all can be ended together
    )
    for _, theirs in pipes:
        theirs.close()
    return process, [ours for ours, _ in pipes]


def part(folder: Path, handles: list[int], group: bool) -> None:
    """Import what all cases need, and go on as two processes."""
    warnings.simplefilter("ignore")
    if group:
        importlib.import_module("torch").set_num_threads(1)
        for module in USED:
            importlib.import_module(module)
    for rank, handle in enumerate(handles):
        if os.fork() == 0:
            for other in set(handles) - {handle}:
                os.close(other)
            _become(rank, folder)
            if group:
                form_group(folder, rank)
            serve(Connection(handle))
            os._exit(0)
    for handle in handles:
        os.close(handle)
    for _ in handles:
        os.wait()


def serve(connection: Connection) -> None:
    """Run the cases that are asked for, until the other end is closed."""
    while True:
        try:
            module, name, arguments = _receive(connection)
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
        _send(connection, (result, error))


def _become(rank: int, folder: Path) -> None:
    """Be told what torchrun tells its processes, and print to a file."""
    os.environ.update(environment(rank))
    with _log(folder, rank).open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def environment(rank: int) -> dict[str, str]:
    """What torchrun tells its processes."""
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "GROUP_RANK": 0,
        "WORLD_SIZE": COUNT,
        "LOCAL_WORLD_SIZE": COUNT,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 29500,  # not used: the process group is there before Lightning asks for it
        "TORCHELASTIC_RUN_ID": "pair",
    }
    return {name: str(value) for name, value in names.items()}


def form_group(folder: Path, rank: int) -> None:
    """Meet the other process in a file of the folder."""
    import torch.distributed as dist
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # found out when it was imported
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=COUNT,
        timeout=timedelta(seconds=120),
    )


if __name__ == "__main__":
    handles, (folder, *rest) = sys.argv[1 : 1 + COUNT], sys.argv[1 + COUNT :]
    part(Path(folder), [int(handle) for handle in handles], "--group" in rest)
