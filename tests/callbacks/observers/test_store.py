"""What the callback Store adds of a run, and that of one that fails it adds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_prune import (
    CausalLM,
    DropBlocks,
    Evaluate,
    LoRA,
    MagnitudeSP,
    Store,
    Wanda,
    WriteReport,
)
from lightning_prune.analysis.store.compared import stored_runs
from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.zeros import sparsity
from lightning_prune.checkpoints.load import load
from lightning_prune.plan import Plan
from lightning_prune.report.report import Report
from tests.lightning.runs import make_data, make_trainer

pytest.importorskip("duckdb")
QUICK = {"speed": False, "prompt": 0}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.duckdb")


def fit(folder: Path, model: Path, text: Path, *callbacks: Callback, **settings: Any) -> CausalLM:
    torch.manual_seed(0)
    module = CausalLM(str(model), adapter=LoRA(r=2))
    trainer = make_trainer(folder, *callbacks, log_every_n_steps=1, **settings)
    trainer.fit(module, make_data(text))
    return module


def test_a_run_is_added_with_all_that_it_measured(
    results: Results, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """In whatever order the callbacks stand: plan, matrices at every stage, figures, recovery."""
    store = Store(str(results.path))
    method = Wanda(sparsity=0.5, keep_scores=True)
    module = fit(tmp_path, model_folder, text_file, store, method, WriteReport(**QUICK), steps=2)
    (run,) = results.query("SELECT * FROM runs").records()
    assert (run["command"], run["method"], run["sparsity"]) == ("fit", "Wanda", 0.5)
    assert (run["device"], run["dtype"], run["error"]) == ("cpu", "float32", None)
    report = Report.from_json(Path(tmp_path, "report.json").read_text())
    judged = "SELECT value FROM evaluations WHERE metric = 'perplexity' AND stage = ?"
    for stage in ("dense", "pruned", "recovered"):
        found = results.query(judged, values=[stage]).rows
        assert found == [(report.stages[stage].perplexity,)]
    dense = {m.name: m for m in sparsity(model_folder).matrices}
    rows = results.query("SELECT name, zeros, norm FROM matrices WHERE stage = 'dense'").rows
    assert {name for name, _, _ in rows} == set(dense)
    for name, zeros, norm in rows:
        weight_OI = load(model_folder).get_parameter(name).detach()
        assert zeros == int((weight_OI == 0).sum())
        assert norm == pytest.approx(float(weight_OI.double().norm()), rel=1e-5)
    found = results.query("SELECT stage, sparsity FROM sparsities").rows
    assert sorted(found) == [("dense", 0.0), ("pruned", 0.5), ("recovered", 0.5)]
    (plan,) = results.query("SELECT * FROM plans").records()
    assert module.plan is not None
    assert (plan["masked"], plan["zeros"]) == (20_160, 10_080)
    assert plan["fingerprint"] == module.plan.fingerprint()
    (recovery,) = results.query("SELECT * FROM recoveries").records()
    assert (recovery["steps"], recovery["revived"]) == (2, 0)
    assert recovery["adapter"].startswith("LoRA(r=2")
    (score,) = results.query("SELECT * FROM scores WHERE name LIKE '%0.mlp.up_proj%'").records()
    kept = module.plan.scores("weight", score["name"])
    assert score["q50"] == pytest.approx(float(kept.double().quantile(0.5)))


def test_units_that_were_cut_are_counted(
    results: Results, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """And their matrices are smaller; without a report, there are plans and matrices."""
    fit(
        tmp_path,
        model_folder,
        text_file,
        MagnitudeSP(ratio=0.25),
        Store(str(results.path)),
        steps=1,
    )
    (plan,) = results.query("SELECT neurons, neurons_gone, zeros FROM plans").rows
    gone = sum(k.removed for k in Plan.load(tmp_path / "plan").blocks("neuron").values())
    assert plan == (66, gone, 0)
    found = results.query(
        "SELECT sum(cut * 22) FROM pruned_matrices "
        "WHERE component = 'down_proj' AND stage = 'pruned'"
    )
    assert found.rows[0][0] == pytest.approx(gone)


def test_blocks_that_were_taken_out_are_gone_and_the_others_keep_their_numbers(
    results: Results, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Each matrix is compared with its own, and nothing is left of those that went."""
    method = DropBlocks(count=1, layer_end=2)  # blocks behind it are numbered anew in the model
    fit(tmp_path, model_folder, text_file, method, Store(str(results.path)), steps=1)
    (gone,) = Plan.load(tmp_path / "plan").dropped
    query = "SELECT block, name, cut, norm_kept FROM pruned_matrices WHERE stage = 'pruned'"
    found = results.query(query).rows
    assert {row[0] for row in found} == {0, 1, 2}
    for block, name, cut, norm_kept in found:
        assert f".{block}." in name
        assert (cut, norm_kept) == ((1, 0) if block == gone else (0, 1))
    (run,) = stored_runs(results)
    assert run.gone(run.matrices) == pytest.approx(1 / 3)


class Fails(Callback):
    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        raise RuntimeError("in the middle")


def test_of_a_run_that_fails_nothing_is_added(
    results: Results, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The same callback adds the next one."""
    store = Store(str(results.path), matrices=False)
    with pytest.raises(RuntimeError, match="in the middle"):
        fit(tmp_path, model_folder, text_file, Wanda(sparsity=0.5), store, Fails())
    assert results.query("SELECT count(*) FROM runs").rows == [(0,)]
    fit(tmp_path, model_folder, text_file, Wanda(sparsity=0.5), store, steps=1)
    assert results.query("SELECT command FROM runs").rows == [("fit",)]
    assert results.query("SELECT count(*) FROM matrices").rows == [(0,)]


def test_a_model_that_is_validated_is_added(
    results: Results, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """With what Lightning logs, and what an Evaluate finds."""
    judge = Evaluate(texts=[str(text_file)], lengths=[16], windows=2)
    trainer = make_trainer(tmp_path, judge, Store(str(results.path)))
    (logged,) = trainer.validate(CausalLM(str(model_folder)), make_data(text_file), verbose=False)
    found = results.query("SELECT metric, value, length FROM evaluations").rows
    assert ("perplexity", pytest.approx(logged["val_perplexity"]), None) in found
    (text,) = judge.results["model"].perplexities
    assert ("perplexity", text.perplexity, 16) in found
    assert results.query("SELECT count(*) FROM matrices WHERE stage = 'model'").rows == [(21,)]


def test_a_file_that_is_no_store_is_refused_before_anything_is_pruned(
    results: Results, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    results.path.write_text("something else")
    with pytest.raises(ValueError, match="is no store of results"):
        fit(tmp_path, model_folder, text_file, Wanda(sparsity=0.5), Store(str(results.path)))
    assert not Path(tmp_path, "plan").exists()
