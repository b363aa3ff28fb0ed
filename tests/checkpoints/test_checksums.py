"""Checksums: a folder that is not as it was saved is refused, and the file is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.load import load
from lightning_prune.export.hf import save
from lightning_prune.models.loading import Source
from lightning_prune.surgery import shrink
from tests.tiny import tiny_batch, tiny_model, uneven_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An uneven model in shards."""
    model = tiny_model("llama")
    shrink(Anatomy(model), uneven_plan(model))
    return save(model, tmp_path / "model", plan=uneven_plan(tiny_model("llama")), shard_size="20KB")


def test_every_file_of_the_model_has_a_checksum(folder: Path) -> None:
    """As a program that knows nothing of us would compute it; the card is free to be written on."""
    names = {path.name for path in folder.iterdir()} - {"checksums.json", "README.md"}
    assert names >= {"config.json", "modeling_pruned.py", "plan.json", "plan.safetensors"}
    assert len(names) > 6
    found = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
    assert found == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}


def test_one_changed_bit_is_refused_unless_nobody_looks(folder: Path) -> None:
    """The shard with the bit is named; `verify=False` reads it all the same."""
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{shard.name} is not the file that was saved"):
        load(folder)
    assert load(folder, verify=False)(tiny_batch()).logits.shape == (2, 12, 64)


def test_a_changed_config_is_refused(folder: Path) -> None:
    """It would compute something else with the same weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"rms_norm_eps": 0.5})
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json is not the file .* delete checksums\.json"):
        load(folder)
    (folder / "checksums.json").unlink()
    assert load(folder).config.rms_norm_eps == 0.5


@pytest.mark.parametrize("name", ["modeling_pruned.py", "plan.json", "plan.safetensors"])
def test_what_lies_beside_the_weights_is_looked_at_too(folder: Path, name: str) -> None:
    """Cut short, or gone."""
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"{name} is not the file that was saved"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is gone"):
        load(folder)


def test_code_that_was_added_is_refused_and_not_run(folder: Path) -> None:
    """Also if the caller trusts the folder's code: not this code."""
    run = folder.parent / "run"
    evil = f"open({str(run)!r}, 'w')\n" + (folder / "modeling_pruned.py").read_text("utf-8")
    (folder / "modeling_evil.py").write_text(evil, encoding="utf-8")
    text = (folder / "config.json").read_text("utf-8")
    text = text.replace("modeling_pruned.", "modeling_evil.").replace("pruned_llama", "llama")
    (folder / "config.json").write_text(text, encoding="utf-8")
    for read in (load, lambda path, **kwargs: Source(str(path), **kwargs).config()):
        with pytest.raises(ValueError, match="is not the file that was saved"):
            read(folder, trust_remote_code=True)
    assert not run.exists()


def test_what_was_added_is_no_matter(folder: Path) -> None:
    """Files of the hub, notes; another file of weights is refused."""
    (folder / ".gitattributes").write_text("")
    (folder / "README.md").write_text("")
    load(folder)


def test_weights_of_the_same_shapes_from_elsewhere_are_refused(folder: Path) -> None:
    """Shapes alone would let them pass."""
    shard = min(folder.glob("model-*.safetensors"))
    tensors = {name: torch.zeros_like(t) for name, t in load_file(shard).items()}
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=shard.name):
        load(folder)


def test_damaged_checksums_are_told_apart_from_damaged_weights(folder: Path) -> None:
    """The message names the file that is at fault."""
    (folder / "checksums.json").write_text("[1", encoding="utf-8")
    with pytest.raises(ValueError, match=r"checksums\.json is damaged"):
        load(folder)


def test_a_folder_without_checksums_is_read(tmp_path: Path) -> None:
    """Stock folders have none."""
    tiny_model("llama").save_pretrained(tmp_path)
    load(tmp_path)
