"""An empty folder, and a terminal of one width, for every command of the group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_prune.cli import main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `analyze …` that must end with one line; gives what it says."""

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            main(["analyze", *arguments])
        assert exit.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("lightning-prune: error: ")
        assert said.count("\n") == 1
        return said

    return refused
