"""Where there is no room, one line says where and for what, and the same command goes on later.

A limit on the size of files stands for the disk: it stops writers at the same places, those of
other libraries too.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.files import DiskFull
from lightning_prune.sweep.store import stored

PLACES = {
    "blocks": (4_000, "plan-unfinished/"),
    "shards": (90_000, "run/pruned"),
    "checkpoint": (200_000, "checkpoints/"),
}
"""How large a file may be, and which one is too large then."""


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Files may have so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(root: Path) -> dict[str, bytes]:
    """What a run decided and saved."""
    names = ("plan/plan.safetensors", "pruned/model.safetensors", "recovered/model.safetensors")
    return {name: (root / name).read_bytes() for name in names}


def test_a_run_without_room_is_one_line_and_goes_on_with_room(
    run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """At every place that writes; to the same bytes, and nothing half written is left."""
    command = ["fit", "--trainer.callbacks=SparseGPT", "--trainer.callbacks.sparsity=0.5"]
    command += ["--trainer.max_steps=2", "--trainer.limit_val_batches=1"]
    command += ["--trainer.callbacks+=WriteReport", "--trainer.callbacks.windows=0"]
    command += ["--trainer.callbacks.speed=false", "--trainer.callbacks.prompt=0"]
    whole = files(run(*command).rename("whole"))
    for size, place in PLACES.values():
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit, limited(size):
            run(*command)
        said = capfd.readouterr().err
        last = said.strip().splitlines()[-1]
        assert exit.value.code == 2
        assert last.startswith("lightning-prune: error: the file is larger than this process may")
        assert place in last
        assert "needs" in last
        assert "Make room there, and the same command goes on" in last
        assert "Traceback" not in said
        assert not list(Path("run").rglob(".*"))
    assert not list(Path("run").rglob("*.ckpt"))
    assert files(run(*command)) == whole


def test_hidden_states_without_room_name_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leave none there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with limited(1000), pytest.raises(DiskFull, match=r"no room to write hidden states \(offload"):
        stored(torch.zeros(8, 1024), "disk")
    kept = stored(torch.ones(8, 1024), "disk")
    assert not list(tmp_path.iterdir())
    torch.testing.assert_close(kept, torch.ones(8, 1024))
