"""Programs that measure run where there is nothing to measure on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
