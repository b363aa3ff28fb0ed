"""The names that users write stay."""

from __future__ import annotations

import pytest

import lightning_prune

PUBLIC = [
    "AFR",
    "ALPS",
    "Ablation",
    "Bias",
    "CFSP",
    "CFSPSigmoid",
    "CausalLM",
    "Distillation",
    "DropBlocks",
    "Evaluate",
    "FLAP",
    "FromFile",
    "GQATaylor",
    "GlobalStandardised",
    "Inverse",
    "LeastSquares",
    "LoRA",
    "Magnitude",
    "MagnitudeSP",
    "NoRepair",
    "OWL",
    "PerBlock",
    "Plan",
    "Progressive",
    "Proportional",
    "QLoRA",
    "RIA",
    "ReFer",
    "ResidualFit",
    "SNIP",
    "SavePretrained",
    "Sensitivity",
    "SparseGPT",
    "StructuredOBS",
    "Taylor",
    "TextData",
    "Uniform",
    "Wanda",
    "WandaSP",
    "WeightAFR",
    "WeightReFer",
    "WeightSNIP",
    "WriteReport",
    "load",
    "prune",
    "prune_in_rounds",
    "save",
]


def test_the_public_names_are_these() -> None:
    """A name is added or taken away on purpose, here and in the changelog."""
    assert sorted(lightning_prune.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_reachable_and_listed(name: str) -> None:
    """Names that are imported on first use are found, and seen by dir() and completion."""
    assert callable(getattr(lightning_prune, name))
    assert name in dir(lightning_prune)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake is not taken for something to import."""
    with pytest.raises(AttributeError, match="Wandah"):
        lightning_prune.Wandah  # noqa: B018
