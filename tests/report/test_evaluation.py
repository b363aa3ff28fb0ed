"""Tables of evaluations: on the terminal, as Markdown, in files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lightning_prune.evaluation import Answer, Evaluation, Size, Speed, TaskScore, TextPerplexity
from lightning_prune.report.evaluation import (
    evaluation_document,
    evaluation_tables,
    perplexity_table,
    size_table,
    speed_table,
    task_table,
)
from lightning_prune.report.files import print_document, write
from lightning_prune.report.numbers import roughly
from lightning_prune.report.tables import Table

DENSE = Evaluation(
    [TextPerplexity("ptb", "test", 128, 9, 20.0)],
    [TaskScore("boolq", "acc", 0.75, 0.01, 100, 0)],
    [Answer("Why?", "Because.", 1.0)],
    [Speed(1, 8, 0.5, 0.1, None)],
    Size(100, 100, 400, 500),
)
PRUNED = Evaluation(
    [TextPerplexity("ptb", "test", 128, 9, 30.0), TextPerplexity("c4", "test", 64, 9, 5.0)],
    [TaskScore("boolq", "acc", 0.5, None, 100, 0)],
    [Answer("Why?", "So.", 0.5)],
    [Speed(1, 8, 0.25, 0.1, None)],
    Size(100, 60, 400, None),
)
BOTH = {"dense": DENSE, "pruned": PRUNED}


def rows(table: Table | None) -> list[tuple[str, ...]]:
    assert table is not None
    return table.texts


def printed(evaluations: dict[str, Evaluation], width: int = 120) -> str:
    file = io.StringIO()
    print_document(evaluation_document(evaluations, {}), Console(file=file, width=width))
    return file.getvalue()


def test_each_is_compared_with_the_first() -> None:
    """A figure, and its relation to the first one's; a dash where one was not measured."""
    assert rows(perplexity_table(BOTH)) == [
        ("ptb (test)", "128", "9", "20.00", "30.00 (1.50x)"),
        ("c4 (test)", "64", "9", "-", "5.000"),
    ]
    assert rows(task_table(BOTH)) == [("boolq", "acc", "100", "0.7500 ± 0.0100", "0.5000")]
    assert rows(size_table(BOTH))[1] == ("zeros", "0.0%", "40.0%")


def test_speeds_are_compared_where_the_work_differs() -> None:
    """In two digits; models of one size differ in zeros at most, and what is measured is noise."""
    smaller = {"dense": (100, 400), "pruned": (80, 320)}
    assert rows(speed_table(BOTH, smaller))[0] == (
        "prefill, tokens/s",
        "1",
        "8",
        "16.0",
        "32.0 (2.0x)",
    )
    table = speed_table(BOTH)
    assert rows(table)[0] == ("prefill, tokens/s", "1", "8", "16.0", "32.0")
    assert table is not None
    assert "it does the same work, and what differs is noise" in table.note
    halved = speed_table(BOTH, {"dense": (100, 400), "pruned": (100, 200)})
    assert rows(halved)[0][-1] == "32.0 (2.0x)"
    assert halved is not None
    assert "noise" not in halved.note


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [(1.234, 1, "1.2x"), (0.0834, 1, "0.083x"), (9.96, 1, "10x"), (123, 1, "123x"), (1, 0, "")],
)
def test_a_factor_of_speeds_has_two_digits(now: float, before: float, said: str) -> None:
    """Whatever its size."""
    assert roughly(now, before) == said


def test_perplexities_of_other_tokens_are_not_compared() -> None:
    """No factor, both numbers of windows, and a note; figures without a hash are as before."""
    one, same, other, old = (
        Evaluation([TextPerplexity("ptb", "test", 128, windows, value, tokens)])
        for windows, value, tokens in ((9, 20.0, "a"), (9, 30.0, "a"), (8, 9.0, "b"), (9, 40.0, ""))
    )
    table = perplexity_table({"one": one, "same": same, "other": other, "old": old})
    assert rows(table) == [
        ("ptb (test)", "128", "9 / 8", "20.00", "30.00 (1.50x)", "9.000", "40.00 (2.00x)")
    ]
    assert table is not None
    assert "the tokenizers cut the text into other tokens" in table.note
    alike = perplexity_table({"one": one, "same": same})
    assert alike is not None
    assert "tokenizers" not in alike.note


def test_a_model_that_says_nothing_is_not_said_to_repeat_itself() -> None:
    """In words; there is no share of unique tokens among none."""
    said = printed({"dense": DENSE, "ruined": Evaluation(answers=[Answer("Why?", "", 0.0)])})
    assert "says nothing" in said
    assert "0% unique" not in said.replace("100% unique", "")


def test_zeros_are_said_to_bring_nothing_by_themselves() -> None:
    """With the model's name and how many."""
    table = size_table(BOTH)
    assert table is not None
    assert table.note.startswith("40.0% of the weights of pruned are zero. Zeros bring no speed")
    dense = size_table({"dense": DENSE})
    assert dense is not None
    assert dense.note == ""


def test_what_was_not_measured_has_no_table() -> None:
    """Also where nothing was."""
    assert evaluation_tables({"a": Evaluation()}) == []
    assert evaluation_tables({}) == []


def test_files_and_terminal_have_the_same_figures(tmp_path: Path) -> None:
    """JSON reads back as evaluations; Markdown keeps its columns whatever a model says."""
    odd = {"dense": DENSE, "a|b": Evaluation(answers=[Answer("x|y\nz", "|", 1.0)])}
    files = write(evaluation_document(odd, {"split": "test"}), tmp_path)
    found = json.loads(Path(files["evaluation.json"]).read_text())
    assert Evaluation.from_dict(found["models"]["dense"]) == DENSE
    assert found["settings"] == {"split": "test"}
    text = Path(files["evaluation.md"]).read_text()
    assert "| ptb (test) | 128 | 9 | 20.00 | - |" in text
    assert "| a\\|b | x\\|y z | \\| | 1.00 |" in text
    for expected in ("30.00 (1.50x)", "0.7500 ± 0.0100", "Because.", "50% unique"):
        assert expected in printed(BOTH)


def test_names_are_whole_in_a_narrow_terminal() -> None:
    """Models that have no room side by side stand below each other; no figure is lost."""
    names = ("SmolLM2-135M-Instruct", "SmolLM2-135M-wanda-2of4", "SmolLM2-135M-sparsegpt-half")
    said = printed({name: DENSE for name in names}, width=80)
    assert max(map(len, said.splitlines())) <= 80
    assert "\u2026" not in said
    for name in names:
        assert said.count(name) >= 4  # size, perplexity, tasks and what it says
    assert said.count("0.7500 ± 0.0100") == 3
    assert "20.00 (1.00x)" in said


def test_texts_are_called_by_their_names() -> None:
    """Not by where they lie, but by as much of it as tells them apart."""
    texts = ("/data/one/test.txt", "/data/two/test.txt", "/data/two/valid.txt", "wikitext2")
    found = Evaluation([TextPerplexity(text, "whole", 64, 9, 20.0) for text in texts])
    assert [row[0] for row in rows(perplexity_table({"dense": found}))] == [
        *("one/test.txt (whole)", "two/test.txt (whole)", "valid.txt (whole)", "wikitext2 (whole)")
    ]
