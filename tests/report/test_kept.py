"""What the store keeps of results that take long to make: circuits, searches, scorers."""

from __future__ import annotations

from lightning_prune.analysis.store.rows import Circuit, Evaluation, Member
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.evaluation.agreement import Agreement
from lightning_prune.evaluation.rates import Rate
from lightning_prune.report.circuit import CircuitResult, Judged
from lightning_prune.report.grid import Cell, Grid
from lightning_prune.report.kept.runs import agreement_run
from lightning_prune.report.kept.studies import circuit_run, grid_runs, spread_run
from lightning_prune.report.search import Spread, Trial


def test_a_circuit_is_kept_with_its_controls_and_members() -> None:
    """Units and single weights, the most telling first."""
    half, low = Rate(0.5, 0.4, 0.6, 10), Rate(0.1, 0.0, 0.2, 10)
    judged = [
        Judged("dense", 0, 10.0, half, half, low),
        Judged("circuit", 2, 11.0, low, half, low),
    ]
    units = CircuitUnits("neuron", [("3", 17), ("0", 2)], [-2.0, -1.0])
    run = circuit_run(CircuitResult("tiny", judged, {"device": "cpu"}), units)
    assert (run.command, run.model, run.device) == ("circuit", "tiny", "cpu")
    circuits = [row for row in run.rows if isinstance(row, Circuit)]
    assert circuits[1] == Circuit("circuit", "neuron", 2, 11.0, 0.1, 0.0, 0.2, 0.5, 0.1)
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
    trials = [Trial("uniform", [0.2, 0.2], 20.0), Trial("1", [0.1, 0.3], 18.0)]
    spread = Spread("tiny", "FLAP(ratio=0.2)", 10.0, trials, trials[1], {"best": 19.0})
    rows = [row for row in spread_run(spread).rows if isinstance(row, Evaluation)]
    found = {(row.metric, row.task, row.block): row.value for row in rows}
    assert found == {
        ("perplexity", None, None): 10.0,
        ("perplexity", "best", None): 19.0,
        ("held_out_perplexity", "uniform", None): 20.0,
        ("held_out_perplexity", "1", None): 18.0,
        ("share", "1", 0): 0.1,
        ("share", "1", 1): 0.3,
    }


def test_a_scorer_is_kept_by_how_it_agrees() -> None:
    found = Agreement(100, 40, 30, 0.9, None, 0.8, 0.6, 0.5, 0.5)
    run = agreement_run(found, {"class": "WordList"}, {"labelled": "labels.jsonl"})
    values = {row.metric: row.value for row in run.rows if isinstance(row, Evaluation)}
    assert (run.model, values) == (
        "WordList", {"auc": 0.9, "spearman": None, "precision": 0.8, "recall": 0.6}
    )  # fmt: skip
