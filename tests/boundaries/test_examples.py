"""The examples of the pages that a user starts from run, and do what the pages say."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import Olmo2Config, Olmo2ForCausalLM

from lightning_prune import Magnitude, Uniform, Wanda, prune
from lightning_prune.anatomy import FAMILIES, Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.commands.parser import call
from lightning_prune.methods.weights import WeightPruning
from tests.contract.cases import batches, even_model
from tests.pages import ROOT, run_page
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="no docs beside the tests")


@pytest.fixture
def families() -> Iterator[None]:
    """A table that an example registers is there for one test."""
    before = list(FAMILIES)
    yield
    FAMILIES[:] = before


def test_a_model_is_pruned_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page, with a model and batches of the reader's."""
    monkeypatch.chdir(tmp_path)
    model = tiny_model("llama", intermediate_size=24)
    names = run_page("README.md", model=model, batches=batches())
    assert names["plan"].sparsity() == 0.5
    torch.testing.assert_close(names["model"].state_dict(), model.state_dict(), rtol=0, atol=0)


def test_methods_of_ones_own_prune() -> None:
    """One that zeroes weights as its score says, and one that cuts."""
    names = run_page("docs/adding/method.md")
    model, other = even_model("llama"), even_model("llama")
    plan = prune(model, names["Louder"](sparsity=0.5, power=1.0), batches())
    expected = prune(other, Wanda(sparsity=0.5), batches())
    assert plan.fingerprint() == expected.fingerprint()
    with pytest.raises(ValueError, match="Louder: power=-1 is not allowed; it is 0 or more"):
        names["Louder"](sparsity=0.5, power=-1)
    cut = prune(even_model("llama"), names["Quietest"](ratio=0.25, allocation=Uniform()), batches())
    assert set(cut.kinds) == {"group", "neuron"}


def test_evidence_of_ones_own_is_collected() -> None:
    """At the inputs of all Linears: the mean square, without outliers."""
    evidence = run_page("docs/adding/evidence.md")["InputSquares"](limit=0.5)
    seen: dict[str, torch.Tensor] = {}

    class Clipped(PruningCallback, WeightPruning):
        @property
        def evidence(self):  # type: ignore[no-untyped-def]
            return evidence

        def score_site(self, site, evidence):  # type: ignore[no-untyped-def]
            seen[site.name] = evidence
            return site.module.weight.abs() * evidence

    model = even_model("llama")
    prune(model, Clipped(sparsity=0.5), batches())
    for site in Anatomy(model).blocks[0].sites:
        assert seen[site.name].shape == (site.module.in_features,)
        assert (seen[site.name] <= 0.25).all()
        assert (seen[site.name] > 0).any()


def test_a_family_of_ones_own_is_known(families: None) -> None:
    """Its blocks are found, and pruned."""
    run_page("docs/adding/family.md")
    config = Olmo2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = Olmo2ForCausalLM(config)
    (first, _) = Anatomy(model).blocks
    assert (first.heads, first.kv_heads, first.width) == (4, 2, 24)
    assert prune(model, Magnitude(sparsity=0.5)).sparsity() == 0.5


def test_a_command_is_made_of_a_function(capsys: pytest.CaptureFixture[str]) -> None:
    """Its options and their help are those of the example."""
    function = run_page("docs/adding/command.md")["sparsity"]
    with pytest.raises(SystemExit):
        call("sparsity", function, ["--help"], {})
    said = " ".join(capsys.readouterr().out.split())
    assert inspect.getdoc(function) is not None
    assert "a Hugging Face folder with safetensors." in said
    assert "the patterns N:M to look for." in said
