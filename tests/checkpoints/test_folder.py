"""Folders are written whole or not at all, and nothing but a model is replaced."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.checkpoints.load import load
from lightning_prune.export.hf import save
from lightning_prune.plan import Plan
from tests.checkpoints.models import even, uneven
from tests.tiny import tiny_model, uneven_plan


def test_a_failure_while_saving_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle of writing changes nothing and leaves no rubbish."""
    model = even()
    folder = save(model, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    plan = Plan()
    monkeypatch.setattr(plan, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tiny_model("opt"), folder, plan=plan)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("written", range(0, 12, 2))
def test_a_disk_that_fills_up_leaves_the_old_folder(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is noticed at a shard, at the index or at the end."""
    folder = save(even(), tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    allowed, real = [None] * written, os.fsync

    def full(descriptor: int) -> None:
        if not allowed:
            raise OSError(errno.ENOSPC, "No space left on device")
        allowed.pop()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full: no room"):
        save(uneven(), folder, shard_size="20KB")
    assert not allowed
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how much is needed and how much there is."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5000))
    with pytest.raises(OSError, match=r"needs 0\.02 GB, the disk has 0\.00 GB free"):
        save(even(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_older_model_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing of an uneven model is left beside an even one."""
    folder = save(uneven(), tmp_path / "model", plan=uneven_plan(tiny_model("llama")))
    save(even(), folder)
    assert not (folder / "modeling_pruned.py").exists()
    assert not (folder / "plan.json").exists()


@pytest.mark.parametrize("content", ["notes.txt", "config.json/checkpoint"])
def test_a_folder_with_other_things_in_it_is_not_replaced(content: str, tmp_path: Path) -> None:
    """Saving into a home or a run folder must not delete it."""
    path = tmp_path / "mine" / content
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a plain model folder"):
        save(even(), tmp_path / "mine")
    assert path.read_text(encoding="utf-8") == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    """A folder made beforehand does not stand in the way."""
    (tmp_path / "model").mkdir()
    load(save(even(), tmp_path / "model"))


def test_a_config_that_is_no_model_s_does_not_make_a_model_folder(tmp_path: Path) -> None:
    """It is the commonest name of a file; what lies beside it stays."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "config.json").write_text('{"my": "app"}', encoding="utf-8")
    with pytest.raises(ValueError, match="no config.json of a model"):
        save(even(), tmp_path / "app")
    folder = save(even(), tmp_path / "model")
    (folder / "thesis.tex").touch()
    with pytest.raises(ValueError, match="it has thesis.tex"):
        save(even(), folder)


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    """The model goes where it points to, and nothing is left beside it."""
    (tmp_path / "disk" / "large").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "model"
    link.symlink_to(tmp_path / "disk" / "large")
    for _ in range(2):
        save(even(), link)
        assert link.is_symlink()
        load(link)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["large"]


@pytest.mark.parametrize(("umask", "readers"), [(0o022, 0o444), (0o077, 0o400)])
def test_folders_are_for_whom_the_umask_says(tmp_path: Path, umask: int, readers: int) -> None:
    """Others read a model where they read its folder, and nowhere else."""
    before = os.umask(umask)
    try:
        folder = save(even(), tmp_path / "model", Plan())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o444 for path in folder.iterdir()} == {readers}
