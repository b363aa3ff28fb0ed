"""`lightning-prune sparsity`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.cli import main


def test_sparsity_prints_a_table_and_writes_json(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per block, per kind, both totals, the pattern and the plan."""
    method = ["--trainer.callbacks=Wanda", "--trainer.callbacks.pattern=1:2"]
    root = run("prune", *method)
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "100")
    main(["sparsity", str(root / "pruned"), "--out", "out", "--patterns", "1:2"])
    said = capsys.readouterr().out
    for expected in (
        *("down_proj", "q_proj", "mlp.up_proj", "row min"),
        "blocks' Linears   50.0% zero",
        "all parameters    ",
        "pattern           1:2 everywhere",
        "plan              agrees: all that its 21 masks remove is zero",
        "out/sparsity.json",
    ):
        assert expected in said, said
    found = json.loads((tmp_path / "out" / "sparsity.json").read_text())
    assert (found["pattern"], found["linear"]["sparsity"]) == ("1:2", 0.5)


def test_sparsity_tells_a_disagreement(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros that were lost since the plan was made."""
    from safetensors.torch import load_file, save_file

    root = run("prune", "--config=quickstart-wanda.yaml")
    path = root / "pruned" / "model.safetensors"
    tensors = {name: torch.ones_like(t) for name, t in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    main(["sparsity", str(root / "pruned")])
    said = capsys.readouterr().out
    assert "plan              DISAGREES" in said
    assert "pattern           none of 1:4, 2:4, 4:8" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no model at 'nothing'"),
        (["quickstrat"], "its weights lie in. Did you mean quickstart?"),
        ([], "the following arguments are required: path"),
        ([".", "--patterns", "4:2"], "pattern 4:2 would keep 4 of 2"),
        (["."], "has no weights"),
    ],
)
def test_a_mistake_of_sparsity_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in all commands."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["sparsity", *arguments])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-prune: error: ")
    assert message in said
    assert said.count("\n") == 1
