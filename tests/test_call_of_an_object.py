"""Every public object is the call that made it."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lightning_prune
from lightning_prune import (
    OWL,
    Bias,
    BlockFit,
    CFSPSigmoid,
    Circuit,
    Detoxify,
    FromFile,
    GlobalStandardised,
    Inverse,
    LeastSquares,
    Pairs,
    Pattern,
    PerBlock,
    PerPart,
    PerSite,
    Profanity,
    Progressive,
    Prompts,
    Proportional,
    Sensitivity,
    TextClassifier,
    Uniform,
    Windows,
    WordList,
)
from lightning_prune.checks import Configured, argument_defaults
from lightning_prune.methods.base import Method
from tests.contract.cases import CASES, METHODS, NESTED

ALLOCATIONS: list[Any] = [
    Uniform(),
    PerBlock(fractions=[0.1, 0.2]),
    PerPart(mlp=[0.1, 0.2]),
    PerSite(fractions=[0.1, 0.2]),
    OWL(M=7.0, lambda_=0.1),
    Inverse(),
    Inverse(importance="angular", alpha=2.0, min_share=0.1, max_share=0.5, log=True),
    Proportional(importance="runs/importance.json"),
    CFSPSigmoid(a=10.0, max_share=0.9),
    Sensitivity(steepness=3.0, windows=2),
    GlobalStandardised(standardise=False),
]


REPAIRS: list[Any] = [Bias(), LeastSquares(), LeastSquares(ridge=0.1, trust=0.0), BlockFit(span=2)]


SAMPLES: list[Any] = [
    Windows(source="builtin", nsamples=4, seed=1),
    Prompts(source=["one", "two"]),
    Prompts(source="prompts.jsonl", score="prompt.toxicity", above=0.9),
    Pairs(source="chats.jsonl", length=64),
]


SCORERS: list[Any] = [
    Pattern(regex="sorry", threshold=0.1),
    WordList(words=["one", "two"]),
    Profanity(),
]


CIRCUITS: list[Any] = [
    Circuit(units="circuit.json", count=3),
    Circuit(general="one.safetensors", undesired="other.safetensors", count=3, contrast="guarded"),
]


OBJECTS = [
    *(case.make() for case in CASES),
    *(*ALLOCATIONS, *REPAIRS, *NESTED, *SAMPLES, *SCORERS, *CIRCUITS),
]


class Names(dict[str, Any]):
    """What a user has imported."""

    def __missing__(self, name: str) -> Any:
        found = {cls.__name__: cls for cls in METHODS}
        return found.get(name) or getattr(lightning_prune, name)


def test_every_public_class_is_among_the_objects(tmp_path: Path) -> None:
    """One that is missing would escape the tests below; three need files or a package."""
    public = (getattr(lightning_prune, name) for name in lightning_prune.__all__)
    classes = {c for c in public if inspect.isclass(c) and issubclass(c, Configured)}
    assert classes - {FromFile, Detoxify, TextClassifier} <= {type(one) for one in OBJECTS}
    (tmp_path / "shares.json").write_text("[0.5]")
    made = FromFile(path=str(tmp_path / "shares.json"))
    assert repr(eval(repr(made), {}, Names())) == repr(made)


@pytest.mark.parametrize("one", OBJECTS, ids=repr)
def test_repr_is_the_call_that_makes_it_again(one: Configured) -> None:
    """With all that differs from the defaults, and nothing else."""
    again = eval(repr(one), {}, Names())
    assert type(again) is type(one)
    assert repr(again) == repr(one)
    defaults = argument_defaults(type(one))
    said = {name for name in defaults if f"{name}=" in repr(one)}
    differs = {k for k, v in one.arguments.items() if repr(v) != repr(defaults[k])}
    assert differs <= said


@pytest.mark.parametrize("one", OBJECTS, ids=repr)
def test_a_copy_with_one_change_is_made_like_any_other(one: Configured) -> None:
    """By dataclasses.replace, checks included; the one it comes from stays."""
    before = repr(one)
    copied = replace(one)  # type: ignore[type-var]
    assert repr(copied) == before
    if isinstance(one, Method):
        changed = replace(one, keep_scores=True) if not isinstance(one, Progressive) else one
        assert changed is one or "keep_scores=True" in repr(changed)
        with pytest.raises((ValueError, TypeError), match="layer_begin"):
            replace(one, layer_begin=1)
    assert repr(one) == before
