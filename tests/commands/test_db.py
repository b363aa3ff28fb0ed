"""`--db FILE`: every command that measures adds what it found to the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.analysis.store.results import Results
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.cli import COMMANDS, main
from lightning_prune.commands import analyze
from tests.analysis.test_scores import unit_plan
from tests.commands.analyze.test_circuits import ranked

pytest.importorskip("duckdb")
DB = "results.duckdb"
MEASURE = {
    *("fit", "validate", "test", "prune", "sweep", "importance", "search", "circuit"),
    *("evaluate", "measure", "score", "sparsity", "compare"),
}
"""Commands whose results are kept; the others make, export, foresee or show something."""
SHARED = {"predict", "plan_resources"}
"""They take the configurations of the others, and keep nothing."""


def asked(sql: str) -> list[tuple[Any, ...]]:
    return list(Results(DB).query(sql).rows)


@pytest.mark.parametrize("name", [*COMMANDS, "analyze scores", "analyze circuits"])
def test_every_command_that_measures_has_the_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no other one."""
    if name in COMMANDS and COMMANDS[name].run.__name__ == "_group":
        assert set(analyze.COMMANDS) > {"scores", "circuits"}
        return
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    measures = name in MEASURE | SHARED or name.startswith("analyze ")
    assert (" --db " in capsys.readouterr().out) is measures


def test_prune_and_sparsity_agree(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A run and the folder that it left have the same zeros, method and target."""
    method = ["--trainer.callbacks+=Wanda", "--trainer.callbacks.pattern=2:4"]
    run("prune", own=[*method, '--trainer.callbacks.exclude=["*.down_proj"]', "--db", DB])
    capsys.readouterr()
    main(["sparsity", "run/pruned", "--db", DB])
    assert f"{DB}  run 2" in capsys.readouterr().out
    assert asked("SELECT command, method, pattern FROM runs ORDER BY run") == [
        ("prune", "Wanda", "2:4"), ("sparsity", "Wanda", "2:4")
    ]  # fmt: skip
    columns = "name, zeros, row_min, row_max, norm"
    first, second = (
        asked(f"SELECT {columns} FROM matrices WHERE run = {n} AND stage = '{s}' ORDER BY name")
        for n, s in ((1, "pruned"), (2, "model"))
    )
    assert first == second
    held = "SELECT DISTINCT held FROM patterns WHERE pattern = '2:4' AND stage <> 'dense'"
    assert asked(held) == [(1.0,)]


def test_a_sweep_adds_a_run_for_each_cell(run: Any) -> None:
    """With the dense model's perplexity in each; the same call again adds them again."""
    own = ['--methods=["Magnitude","Wanda"]', "--sparsities=[0.5,0.25]", "--windows=2"]
    root: Path = run("sweep", own=[*own, f"--db={DB}"])
    cells = json.loads((root / "sweep.json").read_text())["cells"]
    expected = [
        (c["method"], {"50%": 0.5, "25%": 0.25}[c["target"]], c["perplexity"]) for c in cells
    ]
    found = asked(
        "SELECT method, r.sparsity, value FROM runs r JOIN evaluations e USING (run) "
        "WHERE stage = 'pruned' AND metric = 'perplexity' ORDER BY run"
    )
    assert found == expected
    dense = "SELECT DISTINCT count(*) FROM evaluations WHERE stage = 'dense' GROUP BY run"
    assert asked(dense) == [(1,)]
    assert asked("SELECT target FROM runs ORDER BY run") == [("0.5",), ("0.25",)] * 2


def test_importance_is_kept_by_block(run: Any) -> None:
    root: Path = run("importance", own=["--measure=angular", "--windows=2", f"--db={DB}"])
    values = json.loads((root / "importance.json").read_text())["values"]
    found = asked("SELECT block, value FROM evaluations WHERE metric = 'angular' ORDER BY block")
    assert found == [(int(block), value) for block, value in values.items()]


def test_models_that_are_judged_are_runs(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One each, with what the files say."""
    monkeypatch.chdir(tmp_path)
    both = [str(model_folder), "quickstart"]
    text = ["--texts", str(text_file), "--lengths", "16", "--windows", "2", "--device", "cpu"]
    main(["evaluate", *both, *text, "--db", DB, "--out", "out"])
    main(["measure", "quickstart", "--new_tokens=2", "--runs=1", "--device=cpu", "--db", DB])
    main(["compare", *both, "--db", DB])
    assert asked("SELECT command, model FROM runs ORDER BY run") == [
        ("evaluate", model_folder.name), ("evaluate", "quickstart"), ("measure", "quickstart"),
        ("compare", model_folder.name), ("compare", "quickstart"),
    ]  # fmt: skip
    models = json.loads(Path("out/evaluation.json").read_text())["models"]
    expected = [value["perplexities"][0]["perplexity"] for value in models.values()]
    found = asked("SELECT value FROM evaluations WHERE metric = 'perplexity' ORDER BY run")
    assert [value for (value,) in found] == expected
    assert asked("SELECT DISTINCT value FROM evaluations WHERE metric = 'parameters' AND run > 2 "
                 "AND run <> 4") == [(722_048.0,)]  # fmt: skip


def test_overlaps_of_circuits_and_scores_are_similarities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all, and of each block."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        CircuitUnits.random(ranked(), 40, seed).save(f"{name}/circuit.json")
        unit_plan("ReFer", seed=seed).save(f"plan-{name}")
    main(["analyze", "circuits", "one", "two", "--out", "out", "--db", DB])
    pair = json.loads(Path("out/circuits.json").read_text())["members"][0]["pairs"][0]
    found = asked("SELECT a, b, value, by_chance FROM similarities WHERE measure = 'jaccard'")
    assert found == [("one", "two", pair["jaccard"], pair["jaccard_by_chance"])]
    shared = asked("SELECT sum(value) FROM similarities WHERE measure = 'shared'")
    assert shared == [(pair["both"],)]
    main(["analyze", "scores", "plan-one", "plan-two", "--db", DB])
    assert asked("SELECT count(*) FROM similarities WHERE what = 'scores' AND measure = 'spearman' "
                 "AND block IS NULL") == [(1,)]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sparsity", "nothing", "--db", "file"], "file is no store of results: it is no DuckDB f"),
        (["measure", "nothing", "--db", "."], ". is a folder; give the name of a file, such as "),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_first(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one line, before the model is looked for."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lightning-prune: error: {message}")
    assert said.count("\n") == 1
