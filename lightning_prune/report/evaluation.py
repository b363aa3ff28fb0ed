"""Evaluations of models side by side: perplexity, tasks, speed, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.evaluation.results import Evaluation, TaskScore, TextPerplexity
from lightning_prune.files import atomic_write
from lightning_prune.report.numbers import (
    count_text,
    finite,
    perplexity_text,
    roughly,
    seconds_text,
    size_text,
    times,
    unique_text,
)
from lightning_prune.report.sheet import Sheet
from lightning_prune.tokens import begun

__all__ = [
    "evaluation_sheets",
    "perplexity_sheet",
    "print_evaluations",
    "size_sheet",
    "speed_sheet",
    "task_sheet",
    "write_evaluations",
    "zeros_note",
]

ZEROS = (
    "Zeros bring no speed and no smaller file by themselves: they are stored and multiplied like "
    "any number. 2:4 zeros can run faster on NVIDIA GPUs (lightning_prune.export."
    "to_semi_structured); to get a smaller and faster model anywhere, cut units off."
)

OTHER_TOKENS = (
    "Where a figure has no factor, the tokenizers cut the text into other tokens: perplexities of "
    "other tokens cannot be compared."
)

SAME_WORK = (
    "A figure without a factor is of a model with as many parameters, of as many bytes, as the "
    "first: it does the same work, and what differs is noise."
)

Evaluations = Mapping[str, Evaluation]
"""By name; the others are compared with the first."""


def perplexity_sheet(found: Evaluations) -> Sheet | None:
    """One row for each text and window length; None if none was measured."""
    keys = _keys(
        {n: [(p.text, p.split, p.window) for p in e.perplexities] for n, e in found.items()}
    )
    if not keys:
        return None
    tables = {
        name: {(p.text, p.split, p.window): p for p in e.perplexities} for name, e in found.items()
    }
    rows, note = [], f"A window is so many tokens{_begun(found)}; lower is better."
    for key in keys:
        here = [table.get(key) for table in tables.values()]
        windows = " / ".join(dict.fromkeys(f"{p.windows:,}" for p in here if p is not None))
        values = [None if p is None else p.perplexity for p in here]
        same = [_same_tokens(p, here[0]) for p in here]
        figures = _compared(values, perplexity_text, same)
        rows.append((f"{key[0]} ({key[1]})", f"{key[2]:,}", windows, *figures))
        if not all(same) and not note.endswith(OTHER_TOKENS):
            note = f"{note} {OTHER_TOKENS}"
    return Sheet("Perplexity", ("text", "window", "windows", *found), rows, note)


def _begun(found: Evaluations) -> str:
    """What windows begin with, of all models or of those that differ."""
    begins = {n: "".join(dict.fromkeys(p.begin for p in e.perplexities)) for n, e in found.items()}
    if len(set(begins.values())) == 1:
        return begun(next(iter(begins.values())))
    return "".join(f"{begun(begin)} ({name})" for name, begin in begins.items() if begin)


def task_sheet(found: Evaluations) -> Sheet | None:
    """One row for each task and metric, then the mean accuracy; None if there were no tasks."""
    tables = {name: _by_task(e) for name, e in found.items()}
    keys = _keys({name: list(table) for name, table in tables.items()})
    if not keys:
        return None
    rows = []
    for task, metric in keys:
        here = [table.get((task, metric)) for table in tables.values()]
        first = next(score for score in here if score is not None)
        arrow = "" if first.higher_is_better else " (lower is better)"
        rows.append((task, metric + arrow, f"{first.examples:,}", *map(_score, here)))
    shots = {s.few_shot for table in tables.values() for s in table.values()}
    note = f"{', '.join(map(str, sorted(shots)))}-shot, lm-eval; ± is the standard error."
    return Sheet("Tasks", ("task", "metric", "examples", *found), rows, note, left=2)


def speed_sheet(
    found: Evaluations, works: Mapping[str, tuple[int, int]] | None = None
) -> Sheet | None:
    """Prefill, decode and memory, for each batch size and length; None if none was measured.

    Args:
        found: the evaluations.
        works: of each model its parameters and their bytes; None: from the evaluations. Models that
            have as many are not compared: they differ in zeros at most, which bring no speed.
    """
    if works is None:
        sizes = {name: evaluation.size for name, evaluation in found.items()}
        works = {n: (s.parameters, s.bytes) for n, s in sizes.items() if s is not None}
    work = [works.get(name) for name in found]
    differs = [one is None or one != work[0] for one in work]
    tables = {n: {(s.batch_size, s.prompt): s for s in e.speeds} for n, e in found.items()}
    keys = _keys({name: list(table) for name, table in tables.items()})
    if not keys:
        return None
    rows = []
    for key in keys:
        here = [table.get(key) for table in tables.values()]
        batch, prompt = key
        for name, get, show in _SPEEDS:
            values = [None if s is None else get(s) for s in here]
            if any(value is not None for value in values):
                figures = _compared(values, show, differs, roughly)
                rows.append((name, f"{batch}", f"{prompt:,}", *figures))
    note = (
        "With a KV cache; medians. The models ran one after the other, so that other work on the "
        "machine shows in the factors, too."
    )
    if not all(differs[1:]):
        note += f" {SAME_WORK}"
    if any(row[0] == "peak memory" for row in rows):
        note += " Memory on a CPU is that of the whole process."
    return Sheet("Speed and memory", ("", "batch", "prompt", *found), rows, note)


def size_sheet(found: Evaluations) -> Sheet | None:
    """Parameters, zeros, bytes in memory and on disk; None if they were not counted."""
    sizes = [evaluation.size for evaluation in found.values()]
    if not any(sizes):
        return None
    rows = []
    for name, get, show in _SIZES:
        values = [None if size is None else get(size) for size in sizes]
        if any(value is not None for value in values):
            rows.append((name, *_compared(values, show)))
    shares = {n: e.size.zeros for n, e in found.items() if e.size is not None}
    return Sheet("Size", ("", *found), rows, zeros_note(shares))


def evaluation_sheets(found: Evaluations) -> list[Sheet]:
    """Those tables for which something was measured."""
    sheets = (size_sheet(found), perplexity_sheet(found), task_sheet(found), speed_sheet(found))
    return [sheet for sheet in sheets if sheet is not None]


def zeros_note(zeros: Mapping[str, float]) -> str:
    """What zeros bring, said of the models that have them; empty where none has.

    Args:
        zeros: fraction of zeros by the model's name.
    """
    have = [f"{share:.1%} of the weights of {n}" for n, share in zeros.items() if share > 0.005]
    return f"{' and '.join(have)} are zero. {ZEROS}" if have else ""


def print_evaluations(found: Evaluations, console: Console | None = None) -> None:
    """Print the tables and, side by side, what each model says after each prompt."""
    console = console or Console()
    for sheet in evaluation_sheets(found):
        sheet.print(console)
    answers = Table.grid(padding=(0, 2))
    for i, answer in enumerate(next(iter(found.values())).answers if found else ()):
        answers.add_row(Text("prompt", "bold"), "", Text(" ".join(answer.prompt.split()), "dim"))
        for name, evaluation in found.items():
            if i < len(evaluation.answers):
                one = evaluation.answers[i]
                unique = Text(unique_text(one.unique))
                answers.add_row(Text(name, "bold"), unique, Text(" ".join(one.text.split()), "dim"))
    if answers.row_count:
        console.print(answers, end="\n\n")


def write_evaluations(
    found: Evaluations, folder: str | Path, settings: Mapping[str, Any], name: str
) -> dict[str, str]:
    """Write NAME.json and NAME.md; returns their paths by name."""
    value = {"settings": dict(settings), "models": {n: e.to_dict() for n, e in found.items()}}
    parts = [f"## {s.title}\n\n{s.markdown()}" for s in evaluation_sheets(found)]
    answers = {
        n: [(a.prompt, a.text, f"{a.unique:.2f}") for a in e.answers] for n, e in found.items()
    }
    rows: list[tuple[str, ...]] = [
        (n, *said) for n, all_said in answers.items() for said in all_said
    ]
    if rows:
        sheet = Sheet(
            "What they say", ("model", "prompt", "goes on", "unique tokens"), rows, left=3
        )
        parts.append(f"## {sheet.title}\n\n{sheet.markdown()}")
    texts = {
        f"{name}.json": json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n",
        f"{name}.md": "\n\n".join(parts) + "\n",
    }
    for file_name, text in texts.items():
        with atomic_write(Path(folder) / file_name) as file:
            file.write(text)
    return {file_name: str(Path(folder) / file_name) for file_name in texts}


# --- cells ---

_SIZES: tuple[tuple[str, Any, Any], ...] = (
    ("parameters", lambda s: s.parameters, count_text),
    ("zeros", lambda s: s.zeros, lambda v: f"{v:.1%}"),
    ("bytes in memory", lambda s: s.bytes, size_text),
    ("bytes on disk", lambda s: s.disk, size_text),
)
_SPEEDS: tuple[tuple[str, Any, Any], ...] = (
    ("prefill, tokens/s", lambda s: s.prefill_tokens_per_second, lambda v: f"{v:,.0f}"),
    ("time to first token", lambda s: s.prefill_seconds, seconds_text),
    ("decode, tokens/s", lambda s: s.decode_tokens_per_second, lambda v: f"{v:,.1f}"),
    ("time per token", lambda s: s.decode_seconds, seconds_text),
    ("peak memory", lambda s: s.peak_bytes, size_text),
)


def _keys(named: Mapping[str, list[Any]]) -> list[Any]:
    """What any model has, in the order in which it comes."""
    return list(dict.fromkeys(key for keys in named.values() for key in keys))


def _same_tokens(one: TextPerplexity | None, first: TextPerplexity | None) -> bool:
    """Whether two figures are of the same tokens, as far as is known."""
    return one is None or first is None or len({one.tokens, first.tokens} - {""}) < 2


def _compared(
    values: list[Any], show: Any, comparable: list[bool] | None = None, relate: Any = times
) -> list[str]:
    """Each value; those after the first with their relation to it, where it says something."""
    first = values[0]
    shown = []
    for i, value in enumerate(values):
        told = i and (comparable is None or comparable[i])
        relation = relate(value, first) if told else ""
        text = "-" if value is None else show(value)
        shown.append(f"{text} ({relation})" if relation else text)
    return shown


def _by_task(evaluation: Evaluation) -> dict[tuple[str, str], TaskScore]:
    mean = evaluation.mean_accuracy
    scores = [*evaluation.tasks, *([mean] if mean is not None else [])]
    return {(score.task, score.metric): score for score in scores}


def _score(score: TaskScore | None) -> str:
    if score is None:
        return "-"
    value = f"{score.value:.4f}" if abs(score.value) < 1000 else f"{score.value:.4g}"
    return value if score.stderr is None else f"{value} ± {score.stderr:.4f}"
