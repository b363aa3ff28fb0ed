"""A plan on disk: all of it comes back, and what is damaged is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lightning_prune.plan.file
from lightning_prune.plan import Plan
from tests.plan.plans import full_plan, random_mask


def test_everything_comes_back_from_disk(tmp_path: Path) -> None:
    """Masks, units, scores and provenance, from the folder or its plan.json."""
    plan = full_plan()
    assert plan.save(tmp_path / "a" / "plan") == tmp_path / "a" / "plan"
    for path in (tmp_path / "a" / "plan", str(tmp_path / "a" / "plan" / "plan.json")):
        loaded = Plan.load(path)
        assert loaded.provenance == plan.provenance
        assert sorted(loaded.mask_names) == sorted(plan.mask_names)
        for name in plan.mask_names:
            assert torch.equal(loaded.mask(name), plan.mask(name))
        assert sorted(loaded.kinds) == ["group", "neuron"]
        for kind in plan.kinds:
            for block, kept in plan.blocks(kind).items():
                assert loaded.kept(kind, block).tolist() == kept.index_U.tolist()
                assert loaded.blocks(kind)[block].total == kept.total
        for kind, key in (("weight", "w.3.5"), ("neuron", 0), ("group", 11)):
            assert torch.equal(loaded.scores(kind, key), plan.scores(kind, key))


def test_an_empty_plan_comes_back(tmp_path: Path) -> None:
    """Nothing decided is a plan too."""
    assert not Plan.load(Plan().save(tmp_path)).removes_anything


def test_masks_take_one_bit_a_weight(tmp_path: Path) -> None:
    """What is stored of 8192 weights is 1 KiB."""
    plan = Plan()
    plan.set_mask("w", random_mask(64, 128))
    tensors = load_file(plan.save(tmp_path) / "plan.safetensors")
    assert sum(t.numel() * t.element_size() for t in tensors.values()) == 1024


@pytest.mark.parametrize("missing", ["plan.json", "plan.safetensors", "both"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    """The message says which file, and what a plan is."""
    full_plan().save(tmp_path)
    for name in ("plan.json", "plan.safetensors"):
        if missing in (name, "both"):
            (tmp_path / name).unlink()
    named = "plan.json" if missing == "both" else missing
    with pytest.raises(FileNotFoundError, match=f"no plan at .*{named} does not exist.*Plan.save"):
        Plan.load(tmp_path)


def edit_head(folder: Path, **changes: Any) -> None:
    """Rewrites entries of plan.json; None takes them away."""
    head = json.loads((folder / "plan.json").read_text()) | changes
    head = {key: value for key, value in head.items() if value is not None}
    (folder / "plan.json").write_text(json.dumps(head))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, flip_one_bit, lambda path: path.write_bytes(b"")])
def test_damaged_tensors_are_found_by_their_checksum(tmp_path: Path, damage: Any) -> None:
    """One bit is enough."""
    full_plan().save(tmp_path)
    damage(tmp_path / "plan.safetensors")
    with pytest.raises(ValueError, match="do not match the checksums in plan.json"):
        Plan.load(tmp_path)


def test_files_of_two_plans_do_not_mix(tmp_path: Path) -> None:
    """The tensors of another run are refused, although they have the same names and shapes."""
    full_plan(0).save(tmp_path / "a")
    full_plan(1).save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "plan.safetensors", tmp_path / "b" / "plan.safetensors")
    with pytest.raises(ValueError, match=r"belong to another run\. Prune again"):
        Plan.load(tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"masks": {"w.1.1": [3, 9]}},
        {"masks": {"stranger": [3, 5]}},
        {"masks": {"w.3.5": "3x5"}},
        {"masks": ["w.3.5"]},
        {"units": {"neuron": {"7": 22}}},
        {"units": {"neuron": {"zero": 22}}},
        {"units": [1]},
        {"provenance": None},
        {"masks": None},
        {"sha256": None},
        {"format": None},
        {"format": "one"},
    ],
)
def test_a_tampered_head_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """plan.json that does not fit its tensors, or is no plan, is called damaged."""
    full_plan().save(tmp_path)
    edit_head(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"the plan in .* is damaged: .*\. Prune again"):
        Plan.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"plan"'])
def test_a_head_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    """Truncated JSON, and JSON of another kind."""
    full_plan().save(tmp_path)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        Plan.load(tmp_path)


def test_tensors_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    """Even where the checksum agrees."""
    full_plan().save(tmp_path)
    (tmp_path / "plan.safetensors").write_bytes(b"x" * 100)
    edit_head(tmp_path, sha256=lightning_prune.plan.file.sha256(tmp_path / "plan.safetensors"))
    with pytest.raises(ValueError, match="is damaged"):
        Plan.load(tmp_path)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    """Whatever else the newer format changed."""
    full_plan().save(tmp_path)
    edit_head(tmp_path, format=99, masks=None, sha256=None)
    with pytest.raises(ValueError, match=r"of format 99; .*Update lightning_prune"):
        Plan.load(tmp_path)


def raising(*_: Any, **__: Any) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize("where", ["tensors", "sync", "json", "provenance"])
def test_a_failed_save_leaves_the_old_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Both files stay those of the old plan, and nothing else lies there."""
    old, new = full_plan(0), full_plan(1)
    old.save(tmp_path)
    if where == "tensors":
        monkeypatch.setattr(lightning_prune.plan.file, "save_file", raising)
    elif where == "sync":
        monkeypatch.setattr(os, "fsync", raising)
    elif where == "json":
        monkeypatch.setattr(lightning_prune.plan.file, "write_json", raising)
    else:
        new.provenance["tensor"] = torch.ones(1)
    with pytest.raises((OSError, TypeError)):
        new.save(tmp_path)
    monkeypatch.undo()
    assert torch.equal(Plan.load(tmp_path).mask("w.9.31"), old.mask("w.9.31"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.json", "plan.safetensors"]


def test_a_plan_is_saved_over_an_older_one(tmp_path: Path) -> None:
    """The newer one is read."""
    full_plan(0).save(tmp_path)
    full_plan(1).save(tmp_path)
    assert torch.equal(Plan.load(tmp_path).mask("w.9.31"), full_plan(1).mask("w.9.31"))


def test_a_foreign_safetensors_file_is_no_plan(tmp_path: Path) -> None:
    """A checkpoint beside a plan.json is refused."""
    full_plan().save(tmp_path)
    save_file({"model.embed": torch.ones(3)}, tmp_path / "plan.safetensors")
    with pytest.raises(ValueError, match="do not match the checksums"):
        Plan.load(tmp_path)
