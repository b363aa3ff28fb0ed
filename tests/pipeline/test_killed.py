"""A process that is killed at any moment leaves what the next one goes on from, nothing else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_prune import FLAP, ResidualFit, Wanda, load, prune, save
from tests.contract.cases import batches, even_model

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

MOMENTS = (4, 2, 5, 1, 3)
"""Of each start, the file in front of whose renaming it is killed.

`benchmarks/kills.py` kills runs at any time.
"""


def work(folder: Path, method: Any, out: str) -> None:
    """Prune the model in a folder where it lies, and save what is left."""
    model = load(folder / "model", placement="checkpoint", changes=folder / "changes")
    plan = prune(model, method, batches(), resume=folder / "unfinished")
    save(model, folder / out, plan)
    del model


def killed_work(folder: Path, method: Any, moment: int) -> None:
    """The same, killed when the file of that number has been written and is about to be renamed."""
    replace, renamed = os.replace, 0

    def replace_or_die(source: Any, target: Any) -> None:
        nonlocal renamed
        renamed += 1
        if renamed == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die  # type: ignore[assignment]
    work(folder, method, "stopped")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [Wanda(sparsity=0.3), ResidualFit(sparsity=0.3), FLAP(ratio=0.3)],
    ids=repr,
)
def test_a_run_that_is_killed_goes_on(method: Any, tmp_path: Path) -> None:
    """To the same bytes, however often."""
    save(even_model("llama"), tmp_path / "model")
    work(tmp_path, method, "whole")
    fork = multiprocessing.get_context("fork")
    kept = []
    for moment in MOMENTS:
        process = fork.Process(target=killed_work, args=(tmp_path, method, moment))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kept.append(len(list(tmp_path.glob("unfinished/*.json"))))
    work(tmp_path, method, "stopped")
    assert kept == sorted(kept)
    assert kept[-1] > kept[0] > 0
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "stopped", "whole"}


def killed_while_clearing(folder: Path, method: Any) -> None:
    """Gone when one file of the finished steps is removed, and the others are still there."""

    remove = shutil.rmtree

    def remove_one(path: Path, **settings: Any) -> None:
        if path.suffix != ".old":
            return remove(path, **settings)
        next(path.glob("*.safetensors")).unlink()
        os._exit(9)

    shutil.rmtree = remove_one  # type: ignore[assignment]
    work(folder, method, "stopped")


@pytest.mark.slow
def test_a_run_that_is_killed_when_all_is_decided_goes_on(tmp_path: Path) -> None:
    """Half of the finished steps are none."""
    save(even_model("llama"), tmp_path / "model")
    method = Wanda(sparsity=0.3)
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=killed_while_clearing, args=(tmp_path, method))
    process.start()
    process.join()
    assert process.exitcode == 9
    work(tmp_path, method, "stopped")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "stopped"}
