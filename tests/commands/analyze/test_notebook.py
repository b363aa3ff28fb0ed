"""`lightning-prune analyze notebook`: the notebook runs on a store, and says what it cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_prune.analysis.store.results import Results
from lightning_prune.cli import main
from lightning_prune.commands.analyze import notebook
from tests.analysis.store.made import pruned

pytest.importorskip("duckdb")
pytest.importorskip("marimo")


@pytest.mark.slow
def test_it_shows_the_runs_of_a_store(capfd: pytest.CaptureFixture[str]) -> None:
    """All cells run; tables and pictures are in the page that is written."""
    Results("r.duckdb").add([pruned("Wanda"), pruned("SparseGPT", 15.0)])
    main(["analyze", "notebook", "r.duckdb", "--out", "out"])
    page = Path("out/explore.html").read_text()
    for expected in ("Pruning runs", "SparseGPT", "norm_kept", "svg"):
        assert expected in page
    said = "".join(capfd.readouterr())
    assert "explore.html" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("where", [["--out", "out"], ["--port", "2718"]])
def test_what_it_shows_is_not_left_beside_the_notebook(
    where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of one user do not lie where the package is installed, which may be read-only."""
    source = notebook._notebook()
    run: list[Path] = []

    def marimo(*arguments: str) -> None:
        run.append(next(Path(argument) for argument in arguments if argument.endswith(".py")))
        assert run[0].read_text() == source.read_text()

    monkeypatch.setattr(notebook, "_marimo", marimo)
    Results("r.duckdb").add([pruned("Wanda")])
    main(["analyze", "notebook", "r.duckdb", *where])
    assert run[0].parent != source.parent
    assert not run[0].exists()


def test_a_copy_is_edited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    """In the current folder, and the same one again; never the file of the package."""
    source = notebook._notebook()
    before, run = source.read_text(), []
    monkeypatch.setattr(notebook, "_marimo", lambda *arguments: run.append(arguments[:2]))
    Results("r.duckdb").add([pruned("Wanda")])
    main(["analyze", "notebook", "r.duckdb", "--edit"])
    assert run == [("edit", "explore.py")]
    assert "explore.py" in capsys.readouterr().out
    mine = Path("explore.py")
    assert mine.read_text() == before
    mine.write_text(before + "# mine\n")
    main(["analyze", "notebook", "r.duckdb", "--edit"])
    assert mine.read_text().endswith("# mine\n")
    assert source.read_text() == before
    mine.write_text("print('something else')")
    assert "explore.py is no marimo notebook" in refused("notebook", "r.duckdb", "--edit")


def test_without_marimo_it_is_said_what_to_install(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "marimo", None)
    assert "the notebook needs marimo: pip install" in refused("notebook", "r.duckdb")


def test_a_store_that_is_none_is_refused_before_a_server_is_started(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "_marimo", lambda *_: pytest.fail("it was started"))
    assert "no store at 'r.duckdb'" in refused("notebook", "r.duckdb")
