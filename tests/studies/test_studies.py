"""Studies from Python: the same numbers as one by one, without a Trainer or a command line."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningDataModule

from lightning_prune import (
    FLAP,
    CausalLM,
    DropBlocks,
    Inverse,
    Magnitude,
    Plan,
    SparseGPT,
    TextData,
    Wanda,
    WandaSP,
    load,
    measure_importance,
    prune,
    search_shares,
    sweep_methods,
    vary_arguments,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.journal import Journal
from lightning_prune.evaluation import perplexity
from lightning_prune.evaluation.divergence import Divergence
from lightning_prune.report.files import write
from lightning_prune.report.importance import importance_document
from lightning_prune.studies import bench
from tests.commands.theirs import TheirData


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that have really pruned."""
    calls: list[str] = []
    real = bench.prune

    def counting(model: Any, method: Any, *rest: Any) -> Plan:
        calls.append(repr(method))
        return real(model, method, *rest)

    monkeypatch.setattr(bench, "prune", counting)
    return calls


def test_a_cell_is_what_pruning_alone_gives(
    module: CausalLM, data: TextData, model_folder: Path
) -> None:
    """Each starts from the dense weights, whatever came before it; classes or names."""
    methods = [Magnitude, "Wanda", {"class_path": "Wanda", "name": "by matrix",
               "init_args": {"scope": "matrix"}}, partial(Wanda, scope="row")]  # fmt: skip
    grid = sweep_methods(module, data, methods, [0.25])
    assert grid.methods == ["Magnitude", "Wanda", "by matrix", "Wanda(scope=row)"]
    validation = list(data.val_dataloader())
    assert grid.dense == perplexity(load(model_folder), validation)
    for method, cell in (
        (Magnitude(sparsity=0.25), grid.cells[0]),
        (Wanda(sparsity=0.25), grid.cells[1]),
        (Wanda(sparsity=0.25, scope="matrix"), grid.cells[2]),
    ):
        model = load(model_folder)
        prune(model, method, data.calibration_dataloader())
        assert cell.perplexity == perplexity(model, validation)
    assert grid.cells[3].perplexity == grid.cells[1].perplexity
    assert grid.cells[0].sparsity == pytest.approx(0.25, abs=1e-3)
    assert grid.settings["calibration"] == "calibrated on 8 x 32 tokens"


def test_methods_that_cut_are_in_the_table_too(
    module: CausalLM, data: TextData, model_folder: Path
) -> None:
    """As many parameters go, whatever a method cuts; a pattern is none for them."""
    methods = [Magnitude, partial(FLAP, attention=False), {"class_path": "WandaSP"}]
    grid = sweep_methods(module, data, methods, [0.25])
    model = load(model_folder)
    total = sum(parameter.numel() for parameter in model.parameters())
    units = sum(
        block.units(kind) * block.unit_size(kind)
        for block in Anatomy(model).blocks
        for kind in ("group", "neuron")
    )
    method = FLAP(parameters=total - round(units / 4), attention=False)
    prune(model, method, data.calibration_dataloader())
    assert grid.cells[1].perplexity == perplexity(model, list(data.val_dataloader()))
    assert [cell.error for cell in grid.cells] == ["", "", ""]
    assert grid.axis == "zeros asked for (N:M: N kept of M), or parameters of units that go"
    assert [cell.sparsity for cell in grid.cells] == pytest.approx([0.25] * 3, abs=0.05)
    alone = sweep_methods(module, data, methods[2:], [0.25])
    assert alone.axis == "parameters of GQA groups and neurons that go"
    with pytest.raises(ValueError, match="WandaSP cuts units off, and 2:4 is a pattern of zeros"):
        sweep_methods(module, data, [*methods[:1], "WandaSP"], [0.25, "2:4"])


def test_a_journal_keeps_what_is_done(
    module: CausalLM, data: TextData, tmp_path: Path, pruned: list[str]
) -> None:
    """And without one, nothing is written anywhere."""
    first = sweep_methods(module, data, [Magnitude], [0.5], journal=tmp_path / "cells")
    again = sweep_methods(module, data, [Magnitude], ["0.5", "2:4"], journal=tmp_path / "cells")
    assert again.cells[0] == first.cells[0]
    assert pruned == ["Magnitude(sparsity=0.5)", "Magnitude(pattern='2:4')"]
    before = sorted(tmp_path.rglob("*"))
    sweep_methods(module, data, [Magnitude], [0.5])
    assert len(pruned) == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_arguments_are_varied(module: CausalLM, data: TextData) -> None:
    """Of the method, and the number of samples; the data are left as they were."""
    method = partial(FLAP, attention=False)
    grid = vary_arguments(module, data, method, {"ratio": [0.2, 0.4], "nsamples": [4, 16]})
    shape = [(cell.method, cell.target) for cell in grid.cells]
    assert shape == [(f"ratio={r}", f"nsamples={n}") for r in (0.2, 0.4) for n in (4, 16)]
    assert data.nsamples == 8
    assert sum(len(batch["input_ids"]) for batch in data.attach(module.tokenizer, 64)
               .calibration_dataloader()) == 8  # fmt: skip
    nested = {"class_path": "WandaSP", "init_args": {"ratio": 0.3, "allocation": "Inverse"}}
    with pytest.raises(ValueError, match="allocation.alpha needs allocation with a class_path"):
        vary_arguments(module, data, nested, {"allocation.alpha": [1.0]})
    with pytest.raises(ValueError, match="is made already; give its class"):
        vary_arguments(module, data, FLAP(ratio=0.3), {"ratio": [0.2]})
    with pytest.raises(ValueError, match="allocation.alpha is an argument of an argument"):
        vary_arguments(module, data, WandaSP, {"allocation.alpha": [1.0]})


@pytest.mark.parametrize(
    ("method", "per"),
    [
        (FLAP(ratio=0.3, allocation=Inverse()), "block"),
        (WandaSP(ratio=0.3), "part"),
        (SparseGPT(sparsity=0.5), "site"),
    ],
    ids=str,
)
def test_the_best_shares_prune_as_they_say(
    method: Any, per: Any, module: CausalLM, data: TextData, tmp_path: Path
) -> None:
    """The method, the plan and the model that are returned agree, and the budget is kept."""
    data.nsamples, data.batch_size = 4, 2
    before = repr(method)
    best = search_shares(module, data, method, 12, per=per, stages=[2, 4], held_out=4)
    given, found = best.spread.results
    assert (given.name, found.name) == ("as given", "found")
    assert best.spread.best == (found if found.beats(given) else given)
    assert len(best.spread.slots) == len(best.fractions) == {"block": 3, "part": 6, "site": 21}[per]
    assert repr(method) == before
    model = copy.deepcopy(module.base)
    plan = prune(model, best.method, data.calibration_dataloader())
    assert plan.fingerprint() == best.plan.fingerprint()
    assert best.plan.provenance["method"] == type(method).__name__
    value = perplexity(best.model, data.val_dataloader())
    assert best.spread.best.evaluation == pytest.approx(value, rel=1e-6)
    files = best.write(tmp_path)
    assert Plan.load(files["best"]).fingerprint() == plan.fingerprint()


@pytest.mark.parametrize("stop", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_search_that_was_stopped_finds_the_same(
    module: CausalLM, data: TextData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """In its candidates or its trials; what is there already is not done again."""
    data.nsamples, data.batch_size = 4, 2
    ways: dict[str, Any] = {"stages": [2, 4], "held_out": 4, "trials": 20, "children": 4}
    method = FLAP(ratio=0.3)
    whole = search_shares(module, data, method, journal=tmp_path / "whole", **ways)
    puts, real = 0, Journal.put

    def stopping(self: Journal, *args: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts == stop:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            search_shares(module, data, method, journal=tmp_path / "stopped", **ways)
    resumed = search_shares(module, data, method, journal=tmp_path / "stopped", **ways)
    assert resumed.spread == whole.spread
    assert resumed.plan.fingerprint() == whole.plan.fingerprint()
    monkeypatch.setattr(Divergence, "of", None)
    again = search_shares(module, data, method, journal=tmp_path / "stopped", **ways)
    assert again.spread == whole.spread


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials=0; give 1 or more"),
        ({"held_out": 0}, "held_out=0; give 1 or more"),
        ({"step": 1.5}, r"step=1.5 is not in \(0, 1\]"),
        ({"children": 0}, "children=0; give 1 or more"),
        ({"stages": [8, 4]}, r"stages=\[8, 4\]; give numbers that rise"),
        ({"per": "layer"}, "per='layer' is not allowed"),
        ({"per": "site"}, "reach over several; take 'block' or 'part'"),
        ({"method": Wanda(sparsity=0.5, embeddings=True)}, "embeddings=True prunes what lies out"),
        ({"method": partial(DropBlocks, count=1)}, "has no shares to be searched"),
        ({"method": "Flapp"}, "method=Flapp is not allowed. Did you mean FLAP"),
        ({"method": FLAP(ratio=0.3, layer_end=1)}, "only one is pruned"),
        ({"held_out": 10_000}, "windows that share nothing"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(
    settings: dict[str, Any], message: str, module: CausalLM, data: TextData
) -> None:
    """Naming the one argument that is wrong."""
    with pytest.raises(ValueError, match=message):
        search_shares(module, data, **{"method": FLAP(ratio=0.3), "trials": 2, **settings})


def test_importance_is_measured_on_the_first_windows(
    module: CausalLM, data: TextData, tmp_path: Path
) -> None:
    """One number a block, which an allocation reads."""
    importance = measure_importance(module, data, "angular", windows=3)
    assert list(importance.values) == [0, 1, 2]
    assert importance.settings["windows"] == 3
    files = write(importance_document(importance), tmp_path)
    allocation = Inverse(importance=files["importance.json"])
    known = allocation.known_importance([0, 1, 2], 3)
    assert known == pytest.approx(list(importance.values.values()))
    assert json.loads(Path(files["importance.json"]).read_text())["calibration"] == data.source


def test_data_of_others_are_studied(module: CausalLM) -> None:
    """Whatever has calibration and validation batches."""
    grid = sweep_methods(module, TheirData(), [Magnitude], [0.5])
    assert grid.cells[0].error == ""
    assert grid.settings["length"] == 16
    assert measure_importance(module, TheirData(), "norm", windows=0).settings["windows"] == 8
    with pytest.raises(ValueError, match="LightningDataModule has no calibration_dataloader; give"):
        sweep_methods(module, LightningDataModule(), [Magnitude], [0.5])
    with pytest.raises(ValueError, match="TheirData has no nsamples that could be varied"):
        vary_arguments(module, TheirData(), Magnitude, {"nsamples": [1]})
