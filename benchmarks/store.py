"""A store of a thousand runs: how large it is, and how long queries over all matrices take.

    python benchmarks/store.py [runs]

Each run has two stages of 210 matrices, as SmolLM2-135M has, with the shares of three patterns.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.store.rows import Evaluation, Held, Matrix, Row, Run

BLOCKS = 30
KINDS = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}
METHODS = ("Magnitude", "Wanda", "SparseGPT", "RIA")
AT_ONCE = 50
QUERIES = {
    "mean zeros by kind of matrix": "SELECT kind, avg(zeros / (rows * inputs)) FROM matrices "
    "WHERE stage = 'pruned' GROUP BY kind",
    "norm kept by method and component": "SELECT method, component, avg(norm_kept), min(norm_kept) "
    "FROM pruned_matrices GROUP BY ALL",
    "zeros of every run": "SELECT * FROM sparsities",
    "a line for each run": "SELECT * FROM overview",
    "one view of a method": "SELECT layer, avg(sparsity) FROM wanda_0_5_down_proj GROUP BY layer",
    "groups that hold to 2:4": "SELECT name, avg(held) FROM patterns WHERE pattern = '2:4' "
    "GROUP BY name",
}


def run(number: int) -> Run:
    """A run of some method."""
    method, share = METHODS[number % len(METHODS)], 0.3 + 0.1 * (number % 5)
    rows: list[Row] = [Evaluation("dense", "perplexity", 16.0, task="wikitext2")]
    rows.append(Evaluation("pruned", "perplexity", 20.0 + number / 100, task="wikitext2"))
    for stage, zeros in (("dense", 0.0), ("pruned", share)):
        for block in range(BLOCKS):
            for kind, (outputs, inputs) in KINDS.items():
                name = f"model.layers.{block}.{kind}.weight"
                count, norm = round(outputs * inputs * zeros), 30 - 10 * zeros + block / 10
                rows.append(
                    Matrix(stage, name, block, kind, outputs, inputs, count, zeros, zeros, norm)
                )
                rows += [Held(stage, name, p, zeros) for p in ("1:4", "2:4", "4:8")]
    return Run("prune", "SmolLM2-135M", method=method, sparsity=round(share, 1), rows=rows)


def main(runs: int = 1000) -> None:
    """Fill a store, ask it, and print what that took."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder) / "results.duckdb")
        start = time.perf_counter()
        for first in range(0, runs, AT_ONCE):
            results.add([run(number) for number in range(first, min(first + AT_ONCE, runs))])
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        results.add([run(runs)])
        one = time.perf_counter() - start
        (matrices,) = results.query("SELECT count(*) FROM matrices").rows[0]
        size = results.path.stat().st_size / 1e6
        print(f"{runs + 1} runs, {matrices:,} matrices, {size:.1f} MB; added in {seconds:.1f} s")
        print(f"one more run: {one:.2f} s")
        for name, sql in QUERIES.items():
            times = []
            for _ in range(5):
                start = time.perf_counter()
                results.query(sql)
                times.append(time.perf_counter() - start)
            middle = statistics.median(times)
            print(f"{name:36} {middle:.3f} s (file opened each time; slowest {max(times):.3f} s)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
