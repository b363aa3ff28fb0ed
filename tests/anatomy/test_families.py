"""Which table a model has, and tables from outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from lightning_prune.anatomy import FAMILIES, Anatomy, SiteTable, add_family, family_of
from tests.tiny import tiny_batch, tiny_model


@pytest.fixture(autouse=True)
def only_for_this_test() -> Iterator[None]:
    """A table that is added is gone behind the test."""
    before = list(FAMILIES)
    yield
    FAMILIES[:] = before


def test_a_pruned_type_has_the_table_of_its_base() -> None:
    """Uneven checkpoints are read like the models that they come from."""
    assert family_of("pruned_qwen3") is family_of("qwen3")


def test_an_unknown_type_is_told_the_known_ones() -> None:
    """The message lists every known type, and how to add one."""
    with pytest.raises(
        ValueError,
        match=r"unknown model type 'gpt2'\. Known: beit, .*, gemma2, .*, vit\. .*register_family",
    ):
        family_of("gpt2")


def test_an_unknown_type_is_told_the_nearest_one() -> None:
    """As a version of it, or a typing mistake."""
    with pytest.raises(ValueError, match=r"'gemma3_txt'\. Did you mean gemma3_text\? Known: "):
        family_of("gemma3_txt")


def test_a_table_from_outside_is_like_any_other() -> None:
    """A model of its type is described by it, and stays so when its type is the pruned one."""
    family = replace(family_of("llama"), model_types=("mine", "mine_too"))
    add_family(family)
    assert family_of("mine") is family_of("pruned_mine_too") is family
    model = tiny_model("llama")
    model.config.model_type = "mine"
    assert Anatomy(model).family is family
    with torch.no_grad():
        assert model(tiny_batch()).logits.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_types": ("new", "llama")}, "model type 'llama' has a table already"),
        (
            {"sites": (SiteTable("mlp.fc1", reads="x", rows=("neurons",)),)},
            r"roles \['neurons'\]; rows and columns are 'query', 'key', 'value', 'neuron', or ''",
        ),
        (
            {"sites": (SiteTable("mlp.fc2", reads="x", columns="head"),)},
            r"roles \['head'\]",
        ),
        (
            {"sites": (SiteTable("mlp.fc1", reads="x"), SiteTable("mlp.fc1", reads="y"))},
            r"names \['mlp.fc1'\] twice",
        ),
    ],
    ids=["known", "rows", "columns", "twice"],
)
def test_tables_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    """When they are added, and nothing is added then."""
    before = list(FAMILIES)
    family = replace(family_of("llama"), **({"model_types": ("new",)} | changes))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        add_family(family)
    assert before == FAMILIES


def test_what_is_no_family_is_refused() -> None:
    """A name alone, for one."""
    with pytest.raises(TypeError, match="'olmo2' is no Family, which is a table"):
        add_family("olmo2")  # type: ignore[arg-type]
