"""The names that users write stay, and are the same wherever they stand."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import lightning_prune
from lightning_prune.checks import Configured

PUBLIC = [
    "AFR",
    "ALPS",
    "Ablation",
    "Attributions",
    "Bias",
    "BlockFit",
    "CFSP",
    "CFSPSigmoid",
    "CausalLM",
    "Circuit",
    "CircuitUnits",
    "Detoxify",
    "Distillation",
    "DropBlocks",
    "Evaluate",
    "FLAP",
    "FromFile",
    "GQATaylor",
    "GlobalStandardised",
    "ImageClassifier",
    "ImageData",
    "Inverse",
    "LeastSquares",
    "LoRA",
    "Magnitude",
    "MagnitudeSP",
    "OWL",
    "Pairs",
    "Pattern",
    "PerBlock",
    "PerPart",
    "PerSite",
    "Plan",
    "Profanity",
    "Progressive",
    "Prompts",
    "Proportional",
    "QLoRA",
    "RIA",
    "ReFer",
    "Relevance",
    "ResidualFit",
    "SNIP",
    "SavePretrained",
    "Sensitivity",
    "SparseGPT",
    "Store",
    "StructuredOBS",
    "Taylor",
    "TextClassifier",
    "TextData",
    "Uniform",
    "Wanda",
    "WandaSP",
    "WeightAFR",
    "WeightReFer",
    "WeightRelevance",
    "WeightSNIP",
    "Windows",
    "WordList",
    "WriteReport",
    "__version__",
    "attribute",
    "load",
    "measure_importance",
    "prune",
    "prune_in_rounds",
    "register_family",
    "save",
    "search_shares",
    "sparse_activations",
    "study_circuit",
    "sweep_methods",
    "vary_arguments",
]
"""A name is added or taken away on purpose: here, in the stub, and in the changelog."""

STUB = Path(lightning_prune.__file__).with_suffix(".pyi")
PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_public_names_are_these() -> None:
    """Those that the package has are those of the frozen list."""
    assert sorted(lightning_prune.__all__) == PUBLIC


def test_the_package_has_the_names_of_its_stub() -> None:
    """Each re-exported once, from the module that defines it, by a line of its own."""
    names = []
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body[1:]:
        assert isinstance(node, ast.ImportFrom)
        (alias,) = node.names
        assert alias.asname == alias.name, "what is not imported as itself is not re-exported"
        assert node.level == 1
        names.append(alias.name)
        found = getattr(lightning_prune, alias.name)
        module = getattr(found, "__module__", f"lightning_prune.{node.module}")
        assert module == f"lightning_prune.{node.module}", f"{alias.name} is defined in {module}"
    assert sorted(names) == sorted(lightning_prune.__all__) == PUBLIC


def test_every_method_allocation_and_repair_has_its_place_on_the_page() -> None:
    """And nothing else has a heading of that kind."""
    if not PAGE.is_file():
        pytest.skip("no docs beside the tests")
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    public: dict[str, Any] = {name: getattr(lightning_prune, name) for name in PUBLIC}
    configured = {n for n, c in public.items() if inspect.isclass(c) and issubclass(c, Configured)}
    assert sorted(headings) == sorted(configured)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_reachable_and_listed(name: str) -> None:
    """Names that are imported on first use are found, and seen by dir() and completion."""
    found = getattr(lightning_prune, name)
    assert callable(found) or name == "__version__"
    assert name in dir(lightning_prune)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake is not taken for something to import; the nearest name is said."""
    with pytest.raises(AttributeError, match=r"has no 'Wandah'\. Did you mean Wanda\?$"):
        lightning_prune.Wandah  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no 'colour'\.$"):
        lightning_prune.colour  # noqa: B018
