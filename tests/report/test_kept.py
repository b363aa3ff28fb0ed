"""What the store keeps of results that take long to make: circuits, searches, scorers."""

from __future__ import annotations

from pathlib import Path

from lightning_prune import Magnitude, prune, save
from lightning_prune.analysis.similarity import compare_masks
from lightning_prune.analysis.store.rows import Circuit, Evaluation, Member, Similarity
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.evaluation.agreement import Agreement
from lightning_prune.evaluation.rates import Rate
from lightning_prune.report.circuit import CircuitResult, Judged
from lightning_prune.report.grid import Cell, Grid
from lightning_prune.report.kept.runs import agreement_run
from lightning_prune.report.kept.studies import circuit_run, grid_runs, similarities_run, spread_run
from lightning_prune.report.search import Attempt, Spread, Trial
from tests.tiny import tiny_model


def test_a_circuit_is_kept_with_its_controls_and_members() -> None:
    """Units and single weights, the most telling first."""
    half, low = Rate(0.5, 0.4, 0.6, 10), Rate(0.1, 0.0, 0.2, 10)
    judged = [
        Judged("dense", 0, 10.0, half, half, low),
        Judged("circuit", 2, 11.0, low, half, low),
        Judged("random", 2, 10.5, half, half, low),
        Judged("random", 2, 10.6, half, half, low, draw=2),
    ]
    units = CircuitUnits("neuron", [("3", 17), ("0", 2)], [-2.0, -1.0])
    run = circuit_run(CircuitResult("tiny", judged, {"device": "cpu"}), units)
    assert (run.command, run.model, run.device) == ("circuit", "tiny", "cpu")
    circuits = [row for row in run.rows if isinstance(row, Circuit)]
    assert circuits[1] == Circuit("circuit", "neuron", 2, 11.0, 0.1, 0.0, 0.2, 0.5, 0.1)
    assert [(row.name, row.draw) for row in circuits[2:]] == [("random", 1), ("random", 2)]
    assert [row for row in run.rows if isinstance(row, Member)] == [
        Member(0, "neuron", "3", 17, None, -2.0),
        Member(1, "neuron", "0", 2, None, -1.0),
    ]
    weights = CircuitUnits("weight", [("w", 4, 5)])
    (member,) = [r for r in circuit_run(CircuitResult("tiny", []), weights).rows]
    assert member == Member(0, "weight", "w", 4, 5, None)


def test_cells_of_a_search_say_what_was_asked() -> None:
    """Ratios, sparsities and patterns, however they are shown; a failed cell has its reason."""
    targets = ("ratio=0.3", "sparsity=0.5", "2:4", "37.5%", "alpha=2")
    cells = [Cell("FLAP", target, 20.0, 0.3, 1.0) for target in targets]
    runs = grid_runs(Grid("tiny", 10.0, [*cells, Cell("FLAP", "50%", error="too big")]))
    assert [(r.ratio, r.sparsity, r.pattern) for r in runs] == [
        (0.3, None, None), (None, 0.5, None), (None, None, "2:4"), (None, 0.375, None),
        (None, None, None), (None, 0.5, None),
    ]  # fmt: skip
    assert runs[-1].error == "too big"
    assert [row.stage for row in runs[-1].rows if isinstance(row, Evaluation)] == ["dense"]


def test_trials_and_the_shares_of_the_best_are_kept() -> None:
    trials = [Trial("as given", [0.2, 0.2], 20.0, 21.0), Trial("found", [0.1, 0.3], 18.0, 19.0)]
    tried = [Attempt("1.1", 4, 0.5, [0.1, 0.3])]
    slots = ["block 0", "block 1"]
    spread = Spread("tiny", "FLAP(ratio=0.2)", 10.0, slots, tried, trials, trials[1])
    rows = [row for row in spread_run(spread).rows if isinstance(row, Evaluation)]
    found = {(row.stage, row.metric, row.task): row.value for row in rows}
    assert found == {
        ("dense", "perplexity", None): 10.0,
        ("stitched", "divergence", "1.1"): 0.5,
        ("pruned", "perplexity", "as given"): 21.0,
        ("pruned", "held_out_perplexity", "as given"): 20.0,
        ("pruned", "perplexity", "found"): 19.0,
        ("pruned", "held_out_perplexity", "found"): 18.0,
        ("pruned", "share", "block 0"): 0.1,
        ("pruned", "share", "block 1"): 0.3,
    }


def test_similarities_of_masks_are_kept_by_place(tmp_path: Path) -> None:
    """The figures of the report, under the places that they are of."""
    for name, sparsity in (("a", 0.3), ("b", 0.6)):
        model = tiny_model("llama")
        prune(model, Magnitude(sparsity=sparsity))
        save(model, tmp_path / name)
    report = compare_masks({name: tmp_path / name for name in "ab"})
    rows = [row for row in similarities_run(report).rows if isinstance(row, Similarity)]
    (whole,) = report.select("all")
    (found,) = [row for row in rows if (row.measure, row.kind) == ("jaccard", "all")]
    assert (found.a, found.b, found.value) == ("a", "b", whole.jaccard)
    assert found.by_chance == whole.jaccard_by_chance
    by_block = {s.place: s.hamming for s in report.select("block")}
    assert by_block == {
        str(row.block): row.value for row in rows if (row.measure, row.kind) == ("hamming", "block")
    }
    assert len({row.name for row in rows if row.kind == "matrix"}) == len(report.select("matrix"))


def test_a_scorer_is_kept_by_how_it_agrees() -> None:
    found = Agreement(100, 40, 30, 0.9, None, 0.8, 0.6, 0.5, 0.5)
    run = agreement_run(found, {"class": "WordList"}, {"labelled": "labels.jsonl"})
    values = {row.metric: row.value for row in run.rows if isinstance(row, Evaluation)}
    assert (run.model, values) == (
        "WordList", {"auc": 0.9, "spearman": None, "precision": 0.8, "recall": 0.6}
    )  # fmt: skip
