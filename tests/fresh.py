"""Processes that have imported one thing and nothing else, for tests of what an import brings.

One interpreter imports a library after the other, and leaves a process behind after each. A program
runs in a child of one of these, as in an interpreter that was started for it, less the seconds that
the start takes:

    def test_trees_are_not_imported(fresh: Fresh) -> None:
        done = fresh.run("import sys; print('trees' in sys.modules)", after="lightning_prune")
        assert done.stdout == "False\n"

CUDA can be started in none of them, and so by none of the imports.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.processes import ROOT, started

__all__ = ["Fresh"]

STAGES = ("torch", "lightning_prune", "lightning_prune.callbacks")


class Fresh:
    """The processes; started when the first program is to be run."""

    def __init__(self) -> None:
        self._parent: subprocess.Popen[bytes] | None = None
        self._connections: dict[str, Connection] = {}

    def run(
        self,
        program: str,
        *arguments: str,
        after: str,
        cwd: Path = ROOT,
        timeout: float = 280.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a process of its own, and wait for it and those that it forks.

        Args:
            program: source code.
            arguments: of its command line.
            after: what has been imported last, one of `STAGES`.
            cwd: where it runs.
            timeout: seconds after which it is an error that it still runs.
        """
        if self._parent is None:
            self._start()
        with tempfile.TemporaryDirectory(prefix="fresh-") as folder:
            request = (program, arguments, str(cwd), folder)
            self._connections[after].send(request)
            if not self._connections[after].poll(timeout):
                self.close()
                raise TimeoutError(f"after {timeout:.0f} seconds it still runs: {program}")
            status = self._connections[after].recv()
            printed = [Path(folder, name).read_text(errors="replace") for name in ("out", "err")]
        return subprocess.CompletedProcess([program, *arguments], status, *printed)

    def close(self) -> None:
        """End all of them."""
        for connection in self._connections.values():
            connection.close()
        if self._parent is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._parent.pid, signal.SIGKILL)
            self._parent.wait()
            self._parent = None

    def _start(self) -> None:
        self._parent, connections = started(__name__, len(STAGES))
        self._connections = dict(zip(STAGES, connections, strict=True))


# --- in the processes ---


def leave_behind(handles: list[int]) -> None:
    """Import one thing after the other, with a process that serves after each."""
    sys.argv[:] = [""]
    for stage, handle in zip(STAGES, handles, strict=True):
        importlib.import_module(stage)
        if stage == "torch":
            _refuse_cuda(sys.modules["torch"])
        if os.fork() == 0:
            for other in set(handles) - {handle}:
                with contextlib.suppress(OSError):
                    os.close(other)
            serve(Connection(handle))
            os._exit(0)
        os.close(handle)
    for _ in handles:
        os.wait()


def _refuse_cuda(torch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise SystemExit("CUDA was started")

    torch.cuda._lazy_init = refuse
    torch.set_num_threads(1)


def serve(connection: Connection) -> None:
    """Run the programs that are asked for, until the other end is closed."""
    while True:
        try:
            program, arguments, cwd, folder = connection.recv()
        except EOFError:
            break
        ended, alive = os.pipe()  # closed by the last process that has a part in the program
        child = os.fork()
        if child == 0:
            os.close(ended)
            connection.close()
            os.chdir(cwd)
            sys.argv[1:] = arguments
            for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
                with Path(folder, name).open("wb") as file:
                    os.dup2(file.fileno(), stream.fileno())
            os._exit(_status_of(program))
        os.close(alive)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.read(ended, 1)
        os.close(ended)
        connection.send(status)


def _status_of(program: str) -> int:
    """Of an interpreter that ends: 0, what was asked for, or 1 after an error."""
    status: Any = None
    main = sys.modules["__main__"] = type(sys)("__main__")
    try:
        exec(compile(program, "<program>", "exec"), vars(main))
    except SystemExit as exit:
        status = exit.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return int(bool(status)) if isinstance(status, str) else status or 0


if __name__ == "__main__":
    leave_behind([int(handle) for handle in sys.argv[1:]])
