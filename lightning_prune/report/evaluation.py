"""Evaluations of models side by side: perplexity, tasks, speed, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lightning_prune.evaluation.results import Evaluation, TaskScore, TextPerplexity
from lightning_prune.report.files import Document
from lightning_prune.report.forward import forward_table
from lightning_prune.report.names import short_names
from lightning_prune.report.numbers import (
    count_text,
    perplexity_text,
    rate_text,
    roughly,
    seconds_text,
    share_text,
    size_text,
    times,
    unique_text,
)
from lightning_prune.report.tables import Figure, Row, Table
from lightning_prune.tokens import begun

__all__ = [
    "ZEROS",
    "activation_table",
    "answer_table",
    "evaluation_document",
    "evaluation_tables",
    "perplexity_table",
    "size_table",
    "speed_table",
    "task_table",
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


def perplexity_table(evaluations: Evaluations) -> Table | None:
    """One row for each text and window length; None if none was measured."""
    tables = {
        name: {(p.text, p.split, p.length): p for p in e.perplexities}
        for name, e in evaluations.items()
    }
    keys = _keys(tables)
    if not keys:
        return None
    names = short_names(text for text, _, _ in keys)
    rows: list[Row] = []
    note = f"Length: tokens in a window{_begun(evaluations)}; lower is better."
    for text, split, length in keys:
        measured = [table.get((text, split, length)) for table in tables.values()]
        windows = " / ".join(dict.fromkeys(f"{p.windows:,}" for p in measured if p is not None))
        values = [None if p is None else p.perplexity for p in measured]
        same = [_same_tokens(p, measured[0]) for p in measured]
        figures = _compared(values, perplexity_text, same)
        rows.append((f"{names[text]} ({split})", Figure(length, f"{length:,}"), windows, *figures))
        if not all(same) and not note.endswith(OTHER_TOKENS):
            note = f"{note} {OTHER_TOKENS}"
    header = ("text", "length", "windows", *evaluations)
    return Table("Perplexity", header, rows, note, compared=len(evaluations))


def _begun(evaluations: Evaluations) -> str:
    """What windows begin with, of all models or of those that differ."""
    begins = {
        name: "".join(dict.fromkeys(p.begin for p in e.perplexities))
        for name, e in evaluations.items()
    }
    if len(set(begins.values())) == 1:
        return begun(next(iter(begins.values())))
    return "".join(f"{begun(begin)} ({name})" for name, begin in begins.items() if begin)


def task_table(evaluations: Evaluations) -> Table | None:
    """One row for each task and metric, then the mean accuracy; None if there were no tasks."""
    tables = {name: _by_task(e) for name, e in evaluations.items()}
    keys = _keys(tables)
    if not keys:
        return None
    rows: list[Row] = []
    for task, metric in keys:
        scores = [table.get((task, metric)) for table in tables.values()]
        first = next(score for score in scores if score is not None)
        better = "" if first.higher_is_better else " (lower is better)"
        examples = Figure(first.examples, f"{first.examples:,}")
        rows.append((task, metric + better, examples, *map(_score, scores)))
    shots = {s.few_shot for table in tables.values() for s in table.values()}
    note = f"{', '.join(map(str, sorted(shots)))}-shot, lm-eval; ± is the standard error."
    header = ("task", "metric", "examples", *evaluations)
    return Table("Tasks", header, rows, note, words=2, compared=len(evaluations))


def speed_table(
    evaluations: Evaluations, works: Mapping[str, tuple[int, int]] | None = None
) -> Table | None:
    """Prefill, decode and memory, for each batch size and length; None if none was measured.

    Args:
        evaluations: by model.
        works: of each model its parameters and their bytes; None: from the evaluations. Models that
            have as many are not compared: they differ in zeros at most, which bring no speed.
    """
    if works is None:
        sizes = {name: evaluation.size for name, evaluation in evaluations.items()}
        works = {n: (s.parameters, s.bytes) for n, s in sizes.items() if s is not None}
    work = [works.get(name) for name in evaluations]
    cut = [evaluation.unread is not None for evaluation in evaluations.values()]
    differs = [one is None or one != work[0] or c for one, c in zip(work, cut, strict=True)]
    tables = {n: {(s.batch_size, s.prompt): s for s in e.speeds} for n, e in evaluations.items()}
    keys = _keys(tables)
    if not keys:
        return None
    rows: list[Row] = []
    for batch, prompt in keys:
        speeds = [table.get((batch, prompt)) for table in tables.values()]
        for name, get, shown in _SPEEDS:
            values = [None if speed is None else get(speed) for speed in speeds]
            if any(value is not None for value in values):
                figures = _compared(values, shown, differs, roughly)
                rows.append((name, str(batch), f"{prompt:,}", *figures))
    note = (
        "With a KV cache; medians. The models ran one after the other, so that other work on the "
        "machine shows in the factors, too."
    )
    if not all(differs[1:]):
        note += f" {SAME_WORK}"
    if any(row[0] == "peak memory" for row in rows):
        note += " Memory on a CPU is that of the whole process."
    header = ("", "batch", "prompt", *evaluations)
    return Table("Speed and memory", header, rows, note, compared=len(evaluations))


def size_table(evaluations: Evaluations) -> Table | None:
    """Parameters, zeros, bytes in memory and on disk; None if they were not counted."""
    sizes = [evaluation.size for evaluation in evaluations.values()]
    if not any(sizes):
        return None
    rows: list[Row] = []
    for name, get, shown in _SIZES:
        values = [None if size is None else get(size) for size in sizes]
        if any(value is not None for value in values):
            rows.append((name, *_compared(values, shown)))
    shares = {n: e.size.zeros for n, e in evaluations.items() if e.size is not None}
    return Table("Size", ("", *evaluations), rows, zeros_note(shares), compared=len(evaluations))


def activation_table(evaluations: Evaluations) -> Table | None:
    """What share of the weights was not needed; None if no activations were cut."""
    shares = [evaluation.unread for evaluation in evaluations.values()]
    if all(share is None for share in shares):
        return None
    figures = [Figure(share, "-" if share is None else share_text(share)) for share in shares]
    note = (
        "Of the Linears that have a threshold, over all rows that were counted (rows that a kernel "
        "takes are not): inputs at or below it count as zero, and their weights are not needed."
    )
    rows: list[Row] = [("weights not needed", *figures)]
    return Table("Sparse activations", ("", *evaluations), rows, note, compared=len(evaluations))


def evaluation_tables(evaluations: Evaluations) -> list[Table]:
    """Those tables for which something was measured."""
    tables = (
        size_table(evaluations),
        perplexity_table(evaluations),
        task_table(evaluations),
        speed_table(evaluations),
        activation_table(evaluations),
        forward_table(evaluations),
    )
    return [table for table in tables if table is not None]


def answer_table(evaluations: Evaluations) -> Table | None:
    """Each prompt, and below it how each model goes on; None if none was asked."""
    prompts = _keys({name: [a.prompt for a in e.answers] for name, e in evaluations.items()})
    rows = []
    for prompt in prompts:
        rows.append(("prompt", "", " ".join(prompt.split())))
        rows += [
            (name, unique_text(answer.unique), " ".join(answer.text.split()))
            for name, evaluation in evaluations.items()
            for answer in evaluation.answers
            if answer.prompt == prompt
        ]
    return Table("", ("", "", "what they say"), rows, words=3) if rows else None


def evaluation_document(
    evaluations: Evaluations, settings: Mapping[str, Any], name: str = "evaluation"
) -> Document:
    """Evaluations as they are printed, with what each model says, and written.

    Args:
        evaluations: by model.
        settings: how they were made.
        name: of the files.
    """
    tables, answers = evaluation_tables(evaluations), answer_table(evaluations)
    rows = [
        (model, answer.prompt, answer.text, f"{answer.unique:.2f}")
        for model, evaluation in evaluations.items()
        for answer in evaluation.answers
    ]
    header = ("model", "prompt", "goes on", "unique tokens")
    return Document(
        name,
        {"settings": dict(settings), "models": {n: e.to_dict() for n, e in evaluations.items()}},
        printed=[*tables, *([answers] if answers else [])],
        written=[*tables, *([Table("What they say", header, rows, words=3)] if rows else [])],
    )


def zeros_note(zeros: Mapping[str, float]) -> str:
    """What zeros bring, said of the models that have them; empty where none has.

    Args:
        zeros: fraction of zeros by the model's name.
    """
    have = [f"{share:.1%} of the weights of {n}" for n, share in zeros.items() if share > 0.005]
    return f"{' and '.join(have)} are zero. {ZEROS}" if have else ""


# --- cells ---

_SIZES: tuple[tuple[str, Any, Any], ...] = (
    ("parameters", lambda s: s.parameters, count_text),
    ("zeros", lambda s: s.zeros, lambda v: f"{v:.1%}"),
    ("bytes in memory", lambda s: s.bytes, size_text),
    ("bytes on disk", lambda s: s.disk, size_text),
)
_SPEEDS: tuple[tuple[str, Any, Any], ...] = (
    ("prefill, tokens/s", lambda s: s.prefill_tokens_per_second, rate_text),
    ("time to first token", lambda s: s.prefill_seconds, seconds_text),
    ("decode, tokens/s", lambda s: s.decode_tokens_per_second, rate_text),
    ("time per token", lambda s: s.decode_seconds, seconds_text),
    ("peak memory", lambda s: s.peak_bytes, size_text),
)


def _keys(named: Mapping[str, Iterable[Any]]) -> list[Any]:
    """What any model has, in the order in which it comes."""
    return list(dict.fromkeys(key for keys in named.values() for key in keys))


def _same_tokens(one: TextPerplexity | None, first: TextPerplexity | None) -> bool:
    """Whether two figures are of the same tokens, as far as is known."""
    return one is None or first is None or len({one.tokens, first.tokens} - {""}) < 2


def _compared(
    values: Sequence[Any],
    shown: Callable[[Any], str],
    comparable: Sequence[bool] | None = None,
    relate: Callable[[Any, Any], str] = times,
) -> list[Figure]:
    """Each value; those after the first with their relation to it, where it says something."""
    return [
        Figure(
            value,
            "-" if value is None else shown(value),
            relate(value, values[0]) if i and (comparable is None or comparable[i]) else "",
        )
        for i, value in enumerate(values)
    ]


def _by_task(evaluation: Evaluation) -> dict[tuple[str, str], TaskScore]:
    mean = evaluation.mean_accuracy
    scores = [*evaluation.tasks, *([mean] if mean is not None else [])]
    return {(score.task, score.metric): score for score in scores}


def _score(score: TaskScore | None) -> Figure:
    if score is None:
        return Figure(None, "-")
    text = f"{score.value:.4f}" if abs(score.value) < 1000 else f"{score.value:.4g}"
    error = "" if score.stderr is None else f" ± {score.stderr:.4f}"
    return Figure(score.value, text + error)
