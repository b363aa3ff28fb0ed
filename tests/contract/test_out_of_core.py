"""A model that stays in its files is pruned to the same bits as one in memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import (
    FLAP,
    Bias,
    CausalLM,
    Circuit,
    DropBlocks,
    SparseGPT,
    Wanda,
    attribute,
    load,
    save,
)
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.checkpoints.mapped import files_of
from lightning_prune.evaluation import perplexity
from lightning_prune.pipeline import prune
from tests.contract.cases import Case, assert_same_state, batches, even_model, pruned, state
from tests.contract.marks import every_case
from tests.tiny import MODEL_TYPES

Saved = Callable[[str], Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Gives the folder of a tiny model of a type, written once."""
    folder = tmp_path_factory.mktemp("tiny")

    def of(model_type: str) -> Path:
        if not (folder / model_type).exists():
            save(even_model(model_type), folder / model_type)
        return folder / model_type

    return of


def both(folder: Path, method: PruningCallback) -> tuple[nn.Module, nn.Module]:
    """The model pruned in memory, and pruned where it lies."""
    models = load(folder), load(folder, placement="checkpoint")
    plans = [prune(model, method, batches()) for model in models]
    assert plans[0].fingerprint() == plans[1].fingerprint()
    return models


@every_case
def test_the_same_bits_as_in_memory(case: Case, saved: Saved) -> None:
    """Decisions and weights, with every method."""
    (inside, plan), outside = pruned(case), load(saved("llama"), placement="checkpoint")
    assert prune(outside, case.make(), batches()).fingerprint() == plan.fingerprint()
    assert_same_state(outside, state(inside))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_family_stays_in_its_files(model_type: str, saved: Saved, tmp_path: Path) -> None:
    """With all that is computed and not stored; masked, cut with new biases, judged and saved."""
    for method in (SparseGPT(sparsity=0.29), FLAP(ratio=0.3, repair=Bias())):
        inside, outside = both(saved(model_type), method)
        assert_same_state(outside, state(inside))
        buffers = dict(inside.named_buffers())
        assert buffers.keys() == dict(outside.named_buffers()).keys()
        for name, buffer in outside.named_buffers():
            torch.testing.assert_close(buffer, buffers[name], rtol=0, atol=0)
        assert perplexity(inside, batches()) == perplexity(outside, batches())
    folders = [save(model, tmp_path / name) for model, name in ((inside, "in"), (outside, "out"))]
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name


def test_methods_one_after_the_other(saved: Saved) -> None:
    """Also where blocks have changed their numbers in between."""
    models = load(saved("llama")), load(saved("llama"), placement="checkpoint")
    for model in models:
        prune(model, FLAP(ratio=0.3), batches())
        prune(model, DropBlocks(count=1), batches())
        prune(model, SparseGPT(sparsity=0.5), batches())
    assert_same_state(models[1], state(models[0]))


def test_files_of_changes_are_there_once_and_go_with_the_model(
    saved: Saved, tmp_path: Path
) -> None:
    """One for each block, whatever was changed before."""
    folder = tmp_path / "changes"
    model: nn.Module | None = load(saved("llama"), placement="checkpoint", changes=folder)
    for sparsity in (0.3, 0.6):
        assert model is not None
        prune(model, Wanda(sparsity=sparsity), batches())
        assert len(list(folder.iterdir())) == 3
    assert model is not None
    assert files_of(model) is not None
    del model
    assert not folder.exists()


def test_a_folder_that_holds_something_else_is_left_alone(saved: Saved, tmp_path: Path) -> None:
    """When it is named for changes, and when the model goes; what was left there is removed."""
    (tmp_path / "changed-1-model.layers.0.safetensors").write_text("left")
    model: nn.Module | None = load(saved("llama"), placement="checkpoint", changes=tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    del model
    with pytest.raises(ValueError, match=r"holds something else \(notes.txt\)"):
        load(saved("llama"), placement="checkpoint", changes=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_files_of_the_model_are_left_alone(saved: Saved) -> None:
    """What is changed in memory does not reach them."""
    before = (saved("llama") / "model.safetensors").read_bytes()
    model = load(saved("llama"), placement="checkpoint")
    prune(model, SparseGPT(sparsity=0.5), batches())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    assert (saved("llama") / "model.safetensors").read_bytes() == before


def test_weights_are_mapped_as_they_are_stored(saved: Saved, tmp_path: Path) -> None:
    """Another type, or other names, is said before anything is done."""
    with pytest.raises(ValueError, match=r"stored as torch.float32, and torch.bfloat16 is asked"):
        load(saved("llama"), dtype="bfloat16", placement="checkpoint")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"placement": "disk"}, "placement='disk' is not allowed; it is one of 'memory'"),
        ({"changes": "here"}, "changes='here' is for weights that stay in their files"),
        ({"placement": "checkpoint", "changes": __file__}, "is a file; give the name of a folder"),
    ],
)
def test_a_mistaken_place_is_refused(saved: Saved, arguments: dict[str, Any], said: str) -> None:
    """Not taken for memory."""
    with pytest.raises(ValueError, match=re.escape(said)):
        load(saved("llama"), **arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "quickstart", "placement": "disk"}, "placement='disk' is not allowed"),
        ({"config": {"model_type": "llama"}, "placement": "checkpoint"}, "is of saved weights"),
    ],
)
def test_so_it_is_by_a_module(arguments: dict[str, Any], said: str) -> None:
    """When it is made."""
    with pytest.raises(ValueError, match=said):
        CausalLM(**arguments)


def test_a_mistaken_offload_is_refused() -> None:
    """What is no switch, and no place."""
    with pytest.raises(ValueError, match=r"offload='dsk' is not allowed; it is one of False, True"):
        Wanda(sparsity=0.5, offload="dsk")  # type: ignore[arg-type]


def test_attributions_and_circuits_are_the_same_there(saved: Saved) -> None:
    """Block by block from the files; what was masked is put back."""
    inside, outside = load(saved("llama")), load(saved("llama"), placement="checkpoint")
    general = [attribute(model, batches()) for model in (inside, outside)]
    assert general[0].fingerprint() == general[1].fingerprint()
    undesired = attribute(inside, batches(tokens=7))
    method = Circuit(general=general[0], undesired=undesired, count=5)
    plans = [prune(model, method) for model in (inside, outside)]
    assert plans[0].fingerprint() == plans[1].fingerprint()
    assert_same_state(outside, state(inside))
    plans[1].restore(outside)
    assert_same_state(outside, state(load(saved("llama"))))
