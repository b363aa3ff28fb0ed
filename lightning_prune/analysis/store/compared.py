"""Runs read back from the store, to be set side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_prune.analysis.store.results import Results

__all__ = ["FINAL", "StoredRun", "stored_runs"]

FINAL = ("recovered", "pruned", "model")
"""Stages of what a run ends with, the last first."""
TABLES = ("evaluations", "recoveries", "circuits", "similarities", "patterns")
Found = Mapping[str, Any]


@dataclass(frozen=True)
class StoredRun:
    """One run of a store.

    Attributes:
        number: in the store.
        label: what tells it apart: method and target, with its number where others have the same.
        facts: its line of `runs`.
        matrices: those of its last stage, as `pruned_matrices` has them.
        evaluations, recoveries, circuits, similarities, patterns: its lines of these tables.
    """

    number: int
    label: str
    facts: Found
    matrices: Sequence[Found] = ()
    evaluations: Sequence[Found] = ()
    recoveries: Sequence[Found] = ()
    circuits: Sequence[Found] = ()
    similarities: Sequence[Found] = ()
    patterns: Sequence[Found] = field(default=(), repr=False)

    @property
    def stage(self) -> str | None:
        """The last stage that was measured."""
        stages = {line["stage"] for line in (*self.evaluations, *self.matrices)}
        return next((stage for stage in FINAL if stage in stages), None)

    def values(self, metric: str, stage: str | None = None) -> list[Found]:
        """What was measured by a metric, at a stage; None: at all."""
        return [
            line
            for line in self.evaluations
            if line["metric"] == metric and stage in (None, line["stage"])
        ]

    def value(self, metric: str, stage: str | None) -> float | None:
        """The first value of a metric at a stage."""
        found = self.values(metric, stage) if stage is not None else []
        return found[0]["value"] if found else None

    def gone(self, matrices: Sequence[Found]) -> float | None:
        """Fraction of the weights of some of its matrices that are zero, or cut off."""
        before = sum(m["weights_before"] for m in matrices)
        left = sum(m["rows"] * m["inputs"] - m["zeros"] for m in matrices)
        return 1 - left / before if before else None

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def stored_runs(results: Results, numbers: Sequence[int] | None = None) -> list[StoredRun]:
    """Read runs.

    Args:
        results: the store.
        numbers: which, in this order; None: all.

    Raises:
        ValueError: there are no runs, or none of a number; and as `Results.query`.
    """
    lines = results.query("SELECT * FROM runs ORDER BY run").records()
    known = {line["run"]: line for line in lines}
    if not known:
        raise ValueError(f"{results.path} has no runs yet; `--db {results.path}` adds some")
    chosen = list(known) if numbers is None else list(dict.fromkeys(numbers))
    if missing := [number for number in chosen if number not in known]:
        raise ValueError(
            f"{results.path} has no run {missing[0]}; it has 1 to {max(known)}: `lightning-prune "
            f"analyze db {results.path}` lists them"
        )
    tables = {name: _lines(results, name, chosen) for name in (*TABLES, "pruned_matrices")}
    labels = _labels([known[number] for number in chosen])
    runs = []
    for number in chosen:
        found: dict[str, Any] = {name: tables[name].get(number, []) for name in TABLES}
        matrices = tables["pruned_matrices"].get(number, [])
        last = next((s for s in FINAL if any(m["stage"] == s for m in matrices)), None)
        for name, looked in (("matrices", matrices), ("patterns", found["patterns"])):
            found[name] = [line for line in looked if line["stage"] == last]
        runs.append(StoredRun(number, labels[number], known[number], **found))
    return runs


def _lines(results: Results, table: str, numbers: Sequence[int]) -> dict[int, list[Found]]:
    """The lines of a table by run."""
    order = " ORDER BY run, block, kind" if table == "pruned_matrices" else ""
    query = f"SELECT * FROM {table} WHERE run IN (SELECT unnest(?)){order}"
    by_run: dict[int, list[Found]] = {}
    for line in results.query(query, values=[list(numbers)]).records():
        by_run.setdefault(line["run"], []).append(line)
    return by_run


def _labels(lines: Sequence[Found]) -> dict[int, str]:
    """Method and target, or else the model; with the number where that is not enough."""
    names = {}
    for line in lines:
        words = [line["method"], line["target"]] if line["method"] else [line["model"]]
        names[line["run"]] = " ".join(str(word) for word in words if word) or line["command"]
    taken = list(names.values())
    return {n: name if taken.count(name) == 1 else f"{name} #{n}" for n, name in names.items()}
