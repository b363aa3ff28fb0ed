"""Old dumps of pruned matrices: read with care, and put where runs of today are."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from lightning_prune.analysis.store.dumps import runs_of_dumps
from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.store.rows import Matrix

pytest.importorskip("duckdb")


def masked(rows: int, inputs: int, seed: int = 0) -> torch.Tensor:
    weight_OI = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))
    weight_OI.view(-1)[::2] = 0
    return weight_OI


def test_files_of_one_method_and_sparsity_make_a_run(tmp_path: Path) -> None:
    """Zeros, norms and names are those of the matrices; components stand where they belong."""
    for method in ("wanda", "sparsegpt"):
        for block in (0, 11):
            for kind, shape in (("down_proj", (4, 8)), ("self_attn.q_proj", (6, 6))):
                tensor = masked(*shape, seed=block)
                torch.save(tensor, tmp_path / f"layer{block}-{kind}-{method}-unstructured-0.5.pt")
    torch.save({"weight": masked(4, 8)}, tmp_path / "layer0-down_proj-wanda-unstructured-0.7.pt")
    (tmp_path / "notes.pt").write_text("no dump")
    runs = runs_of_dumps(tmp_path)
    assert [(r.method, r.sparsity) for r in runs] == [
        ("sparsegpt", 0.5), ("wanda", 0.5), ("wanda", 0.7)
    ]  # fmt: skip
    first = [row for row in runs[0].rows if isinstance(row, Matrix)]
    assert {(m.block, m.kind) for m in first} == {
        (block, kind) for block in (0, 11) for kind in ("mlp.down_proj", "self_attn.q_proj")
    }
    (down,) = (m for m in first if (m.block, m.kind) == (11, "mlp.down_proj"))
    assert (down.rows, down.inputs, down.zeros) == (4, 8, 16)
    assert down.norm == pytest.approx(float(masked(4, 8, seed=11).norm()))


def test_they_stand_in_the_views_of_runs_of_today(tmp_path: Path) -> None:
    """Whatever the case of the method's name."""
    torch.save(masked(4, 8), tmp_path / "layer3-down_proj-wanda-0.5.pt")
    results = Results(tmp_path / "results.duckdb")
    results.add(runs_of_dumps(tmp_path))
    found = results.query("SELECT layer, sparsity FROM wanda_0_5_down_proj")
    assert found.rows == [(3, 0.5)]


def test_sparse_tensors_and_masks_are_matrices(tmp_path: Path) -> None:
    torch.save(masked(4, 8).to_sparse(), tmp_path / "layer0-up_proj-wanda-0.5.pt")
    torch.save(masked(4, 8) != 0, tmp_path / "layer1-up_proj-wanda-0.5.pt")
    (run,) = runs_of_dumps(tmp_path)
    assert [row.zeros for row in run.rows if isinstance(row, Matrix)] == [16, 16]


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Harmful(), "is damaged, or holds more than tensors, which is not unpickled$"),
        (torch.zeros(3), "holds a tensor of 1 axes; a dump is one matrix"),
        ({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, "holds 2 values; a dump is one matrix"),
        ([1, 2], "holds a list; a dump is one matrix"),
        (b"nothing", "is damaged, or holds more than tensors"),
    ],
)
def test_what_is_no_matrix_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    """And what would run code does not."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "layer0-up_proj-wanda-0.5.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, Harmful):
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=message):
        runs_of_dumps(tmp_path)
    assert not Path("harm").exists()


def test_a_folder_without_dumps_says_what_they_are_called(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no dumps in .*names are as in layer3-down_proj-w"):
        runs_of_dumps(tmp_path)
