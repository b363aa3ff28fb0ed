"""Programs that measure run where there is nothing to measure on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.fresh import Fresh


@pytest.mark.slow
def test_the_program_for_a_gpu_runs_on_the_cpu(fresh: Fresh, tmp_path: Path) -> None:
    """With tiny shapes: every method has a row of figures."""
    out = tmp_path / "gpu.json"
    done = fresh.run(
        "import sys, runpy\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "runpy.run_path('benchmarks/gpu.py', run_name='__main__')\n",
        *("--cpu", "--no_tests", f"--out={out}"),
        after="lightning_prune.callbacks",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert results["card"] == "cpu"
    rows = results["SmolLM2-135M"]
    assert set(rows) == {
        "Wanda 50%",
        "SparseGPT 50%",
        "GQATaylor 25%, no repair",
        "FLAP 25% + LeastSquares",
        "ResidualFit 50%",
    }
    for row in rows.values():
        assert row["seconds"] > 0
        assert row["passes"] > 0
        assert row["limit"] > 0


def run_sparse_gemv(fresh: Fresh, *arguments: str) -> str:
    done = fresh.run(
        "import sys, runpy\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "runpy.run_path('benchmarks/sparse_gemv.py', run_name='__main__')\n",
        *arguments,
        after="lightning_prune.callbacks",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_products_with_inputs_of_zero_are_measured_on_the_cpu(fresh: Fresh, tmp_path: Path) -> None:
    """With tiny shapes: true sparsity, right results, times, and the limit that bytes set."""
    out = tmp_path / "gemv.json"
    run_sparse_gemv(fresh, "--cpu", f"--out={out}")
    cases = json.loads(out.read_text())["cases"]
    assert {(case["outputs"], case["inputs"]) for case in cases} == {(96, 64), (33, 65)}
    for case in cases:
        assert abs(case["zeros"] - case["asked"]) < 0.02
        assert case["error"] < 2e-3
        assert min(case["dense"], case["sparse"]) > 0
        assert 1 <= case["limit"] < 1 / (1 - case["asked"] + 1e-9) + 0.1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a CUDA device")
def test_without_a_gpu_it_is_said_what_would_be_measured(fresh: Fresh) -> None:
    """Every shape, with its bytes and the time that memory alone takes."""
    said = run_sparse_gemv(fresh)
    assert "torch finds no CUDA device. It would measure this" in said
    assert "14336 x 4096" in said
    assert "us, H100 SXM" in said
