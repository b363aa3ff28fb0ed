from __future__ import annotations

import dataclasses
import io
import math

import pytest
from rich.console import Console

from lightning_prune.evaluation import Answer, Evaluation
from lightning_prune.report.files import print_document, print_files
from lightning_prune.report.report import Report, StageMetrics
from lightning_prune.report.run import run_document
from tests.report.example import example_report


def printed(report: Report, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_document(run_document(report, "runs/example"), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, stage: str) -> str:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [stage]]
    return " ".join(line.split())


def test_each_stage_has_its_figures_beside_the_dense_ones() -> None:
    """Perplexity and speed as multiples of dense, parameters as a percentage."""
    text = printed(example_report())
    assert row(text, "dense") == "dense 36.21 912.35K 0.0% 3.65 MB 5,120"
    assert row(text, "pruned") == "pruned 88.02 2.43x 712.35K 78.1% 0.0% 2.85 MB 6,300 1.2x"
    assert row(text, "recovered") == "recovered - 712.35K 78.1% 0.0% 2.85 MB -"


def test_the_title_says_what_was_measured_how() -> None:
    """Model, method and window length stand above the table."""
    text = printed(example_report())
    assert "tiny" in text
    assert "GQATaylor(ratio=0.25)" in text
    assert "64 windows of 128 tokens, cpu, float32" in text


def test_the_table_fits_80_columns() -> None:
    """Also with the figures of a large model that was badly hurt."""
    report = example_report()
    size = 70_553_706_496
    report.stages["dense"] = StageMetrics(5.4731, size, size, 2 * size, 1_234_567.0)
    report.stages["pruned"] = StageMetrics(123_456.7, size, size // 2, 2 * size, 1_234_567.0)
    text = printed(report)
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text  # nothing was cut to fit
    assert row(text, "pruned").startswith("pruned 123,457 2e+04x")
    assert "5.473" in row(text, "dense")
    assert "141 GB" in text


def test_zeros_without_smaller_shapes_carry_a_note() -> None:
    """Half the weights zero at the same size saves nothing, and the table says so."""
    report = example_report()
    dense = report.stages["dense"]
    masked = dataclasses.replace(dense, nonzero=dense.parameters // 2, tokens_per_second=6300.0)
    text = printed(dataclasses.replace(report, stages={"dense": dense, "pruned": masked}))
    assert row(text, "pruned").endswith("6,300")  # the same work: no faster, whatever was measured
    assert "50.0%" in row(text, "pruned")
    assert "save neither bytes nor time" in text
    assert "save neither bytes nor time" not in printed(example_report())


def test_a_model_that_was_only_measured_is_not_compared() -> None:
    """Without a dense stage there is no column of relations."""
    report = example_report()
    del report.stages["dense"]
    text = printed(report)
    assert "dense" not in text
    assert row(text, "pruned") == "pruned 88.02 712.35K 0.0% 2.85 MB 6,300"


@pytest.mark.parametrize("perplexity", [math.inf, math.nan])
def test_a_ruined_model_is_shown_as_it_is(perplexity: float) -> None:
    """An infinite perplexity is printed, and is not a multiple of anything."""
    report = example_report()
    report.stages["pruned"] = dataclasses.replace(report.stages["pruned"], perplexity=perplexity)
    assert row(printed(report), "pruned").startswith(f"pruned {perplexity} 712.35K")


def test_names_with_brackets_are_printed_as_they_are() -> None:
    """A model name that looks like markup is a name."""
    assert "[red]odd[/] model" in printed(example_report(model="[red]odd[/] model"))


def test_files_are_named_on_unbroken_lines() -> None:
    """A long path can be copied from the terminal."""
    file, path = io.StringIO(), "runs/" + "x" * 100 + "/report [1].json"
    print_files({"report": path, "plan": "runs/plan"}, Console(file=file, width=80))
    assert file.getvalue() == f"report  {path}\nplan    runs/plan\n"


def test_a_terminal_without_unicode_can_print_it() -> None:
    """Lines are drawn with what the encoding has."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_document(run_document(example_report(), "x"), Console(file=file, width=80))
    file.flush()


def test_what_the_models_said_is_printed_on_one_line_each() -> None:
    """Line breaks in the text do not break the columns."""
    said = {"dense": Evaluation(answers=[Answer("Once\nupon", "a\ntime", 1.0)])}
    text = " ".join(printed(dataclasses.replace(example_report(), evaluations=said)).split())
    assert "prompt Once upon" in text
    assert "dense 100% unique a time" in text


def test_the_time_of_each_part_is_printed() -> None:
    """In its order, as a reader wants it."""
    seconds = {"measuring dense": 2.04, "pruning": 75.0, "training": 4000.0}
    text = printed(dataclasses.replace(example_report(), seconds=seconds))
    assert "time: measuring dense 2.0 s, pruning 1 min 15 s, training 1 h 07 min\n" in text
    assert "time:" not in printed(example_report())


def test_what_was_not_measured_has_no_column() -> None:
    """Neither on the terminal nor anywhere else; what one stage has, all have."""
    report = example_report()
    timeless = {n: dataclasses.replace(s, tokens_per_second=None) for n, s in report.stages.items()}
    text = printed(dataclasses.replace(report, stages=timeless))
    assert "tokens/s" not in text
    assert row(text, "pruned") == "pruned 88.02 2.43x 712.35K 78.1% 0.0% 2.85 MB"
    assert "tokens/s" in printed(report)
