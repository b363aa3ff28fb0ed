"""A method as a value: arguments, repr, provenance."""

from __future__ import annotations

import json

import pytest

from lightning_prune import BlockFit
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.checks import Configured
from lightning_prune.methods.blocks import BlockPruning
from lightning_prune.pipeline import prune
from tests.contract.cases import (
    SETTINGS,
    Case,
    batches,
    even_model,
)
from tests.contract.marks import (
    every_case,
    every_method,
)

SHARED = {"plan", "layer_start", "layer_end", "keep_scores", "offload", "block_fit"}


@every_method
def test_every_method_is_tried(cls: type[PruningCallback]) -> None:
    """A method without settings here would not be tested at all."""
    assert SETTINGS.get(cls.__name__), (
        f"{cls.__name__} has no settings: add some to SETTINGS in tests/contract/cases.py"
    )


@every_case
def test_repr_makes_the_method_again(case: Case) -> None:
    """And says only what differs from the defaults."""
    method = case.make(layer_start=1, layer_end=3, keep_scores=True)
    again = eval(repr(method), {case.cls.__name__: case.cls, "BlockFit": BlockFit})
    assert (repr(again.arguments), type(again)) == (repr(method.arguments), type(method))
    assert repr(again) == repr(method)
    assert "offload" not in repr(method)


@every_case
def test_arguments_are_all_the_constructor_takes(case: Case) -> None:
    """Its own and those of its base classes, under their names."""
    method = case.make(layer_end=2)
    assert case.settings.items() <= method.arguments.items()
    assert method.arguments["layer_end"] == 2
    assert method.arguments.keys() >= SHARED
    assert ("allocation" in method.arguments) is not issubclass(case.cls, BlockPruning)
    assert method.state_key != case.make(layer_end=1).state_key


@every_case
def test_unknown_arguments_are_refused(case: Case) -> None:
    """A misspelt setting is not ignored."""
    message = f"{case.cls.__name__} has no argument 'layer_begin'.* Allowed: .*plan, layer_start"
    with pytest.raises(TypeError, match=message):
        case.make(layer_begin=1)


@every_case
def test_provenance_says_how_the_plan_was_made(case: Case) -> None:
    """In words that JSON can hold."""
    plan = prune(even_model("llama"), case.make(), batches())
    assert json.loads(json.dumps(plan.provenance)) == plan.provenance
    assert plan.provenance["method"] == case.cls.__name__
    assert plan.provenance["model_type"] == "llama"
    words = {k: repr(v) if isinstance(v, Configured) else v for k, v in case.settings.items()}
    assert words.items() <= plan.provenance["arguments"].items()
