"""The page of a run: what it shows, that nothing in it runs, and that it needs no network."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lightning_prune.evaluation import Evaluation, Speed
from lightning_prune.report.page import report_page
from lightning_prune.report.report import Asked, Report
from tests.report.example import example_report, full_report

VOID = {"meta", "br"}
NASTY = "</title></div><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


class Reader(HTMLParser):
    """Tags that are not closed, all tags and attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(report: Report) -> Reader:
    reader = Reader(report_page(report, "runs/example"))
    assert reader.open == []
    return reader


def test_everything_that_was_measured_is_on_the_page() -> None:
    """Figures, what was asked, tasks with their errors, what was said, hashes."""
    text = read(full_report()).text
    for expected in (
        "GQATaylor(ratio=0.25)",
        "−21.9%",
        "88.02 2.43×",
        "712,345 78.1%",
        "Perplexity is of 64 validation windows of 128 tokens.",
        "50.00% of 64 weights are zero",
        "wikitext2 (test)",
        "2,048",
        "0.5000 ± 0.0100",
        "mean of 2",
        "self_attn.q_proj",
        "Importance of blocks for FLAP",
        "Training loss",
        "pruned 88",
        "recovered: because",
        "75% unique",
        "time to first token",
        "plan (sha256)",
        "calibration.seed",
    ):
        assert expected in text, expected


@pytest.mark.parametrize(
    "where", ["model", "method", "prompt", "answer", "setting", "stage", "file"]
)
def test_text_of_others_stays_text(where: str) -> None:
    """Names, prompts and what a model says cannot become markup, wherever they stand."""
    report = full_report(
        model=NASTY if where == "model" else "tiny", prompt=NASTY if where == "prompt" else "Why?"
    )
    if where == "method":
        report = replace(report, method=NASTY, importance={NASTY: {0: 1.0}})
    elif where == "answer":
        answers = report.evaluations["dense"].answers
        answers[0] = type(answers[0])("Why?", NASTY, 1.0)
    elif where == "setting":
        report.settings[NASTY] = NASTY
        report = replace(report, configuration={NASTY: {NASTY: NASTY}})
    elif where == "stage":
        stages = {f"{i}{NASTY}": s for i, s in enumerate(report.stages.values())}
        report = replace(report, stages=stages, seconds={NASTY: 1.0})
    elif where == "file":
        report = replace(report, files={NASTY: f"javascript:{NASTY}"})
    reader = read(report)
    assert not {"script", "img", "iframe", "object", "link"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    links = [value for name, value in reader.attributes if name == "href"]
    assert not [link for link in links if ":" in link]


def test_nothing_is_fetched() -> None:
    """One file: no address, no script, and a policy that forbids both."""
    page = report_page(full_report(), "runs/example")
    assert not re.search(r"https?:|url\(|@import|src=", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_files_are_linked_from_where_the_page_lies() -> None:
    """Relative, so that the folder can be moved."""
    page = report_page(example_report(), "runs/example")
    assert 'href="plan"' in page


@pytest.mark.parametrize(
    "report",
    [example_report(blocks=0), Report("m", "", "now"), example_report(blocks=1)],
    ids=["no blocks", "nothing", "one block"],
)
def test_what_was_not_measured_is_left_out(report: Report) -> None:
    """No empty sections, and no failure."""
    text = read(report).text
    assert "Recovery" not in text
    assert "What the models say" not in text
    assert ("Blocks" in text) == bool(report.blocks)


def test_a_ruined_model_has_a_page() -> None:
    """Infinite perplexities are shown, and left out of the curves."""
    report = full_report()
    report.stages["pruned"] = type(report.stages["pruned"])(math.inf, 1, 1, 4, None)
    report.curves["val_perplexity"] = [(1, math.inf), (2, math.nan), (3, 40.0)]
    page = report_page(report, ".")
    assert "inf" in page
    assert "nan," not in page


def test_masks_alone_are_said_to_bring_no_speed() -> None:
    """Where there are zeros and not fewer parameters, in plain words."""
    report = example_report(sparsity=0.5)
    dense = report.stages["dense"]
    masked = type(dense)(50.0, dense.parameters, dense.parameters // 2, dense.bytes, 5000.0)
    evaluations = {
        name: Evaluation(speeds=[Speed(1, 128, seconds, seconds, None)])
        for name, seconds in (("dense", 0.02), ("pruned", 0.01))
    }
    stages = {"dense": dense, "pruned": masked}
    report = replace(report, stages=stages, evaluations=evaluations)
    assert "12,800" in read(report).text
    assert "12,800 (" not in read(report).text
    assert "Zeros bring no speed and no smaller file by themselves" in read(report).text
    assert "Zeros bring no speed" not in read(example_report()).text


def test_a_model_of_many_blocks_keeps_every_bar() -> None:
    """Eighty blocks; the page does not become wider, the picture scrolls in its box."""
    page = report_page(full_report(blocks=80), Path("x"))
    assert page.count('<rect class="f-blue heads"') == 80
    assert page.count('<rect class="f-deep cell"') == 160
    assert '<figure class="wide">' in page
    assert '<figure class="wide">' not in report_page(full_report(blocks=4), Path("x"))


def test_what_is_whole_is_said_and_not_drawn() -> None:
    """No bars where nothing was cut, and no cells where nothing was masked."""
    report = example_report(blocks=3)
    whole = [
        replace(b, heads=8, kv_heads=4, width=90, sparsity={"mlp.up_proj": 1e-4})
        for b in report.blocks
    ]
    page = report_page(replace(report, blocks=whole), "x")
    assert "Nothing is cut off: 3 blocks with 24 query heads, 12 key/value heads" in page
    assert "<rect" not in page
    assert "Weights set to zero" not in page


def test_the_time_of_each_part_is_on_the_page() -> None:
    """With its share of all."""
    text = read(full_report()).text
    assert "Where the time went" in text
    assert "pruning1 min 15 s2%" in text
    assert "training1 h 07 min98%" in text


def test_blocks_that_are_gone_are_named() -> None:
    """By their places in the dense model; a block that has something left is not."""
    report = example_report(blocks=5)
    gone = [
        replace(b, heads=0, kv_heads=0, width=0, sparsity={}) if b.index in (1, 3) else b
        for b in report.blocks
    ]
    assert "2 of 5 blocks are gone: 1, 3." in read(replace(report, blocks=gone)).text
    assert "are gone:" not in read(report).text


def test_settings_without_a_value_are_left_out() -> None:
    """A name with nothing beside it says nothing."""
    report = example_report()
    page = report_page(replace(report, settings={**report.settings, "begin": ""}), ".")
    assert "<dt>begin</dt>" not in page
    assert "<dt>length</dt>" in page


def test_places_on_a_disk_are_no_matter_of_the_page() -> None:
    """The method and the settings name what lies there; report.json and config.yaml say where."""
    report = replace(
        example_report(),
        method="Circuit(units='/home/me/circuit.json')",
        configuration={"data": {"source": "/home/me/texts.jsonl"}},
    )
    read_page = read(report).text
    assert "/home" not in read_page
    assert "Circuit(units='circuit.json')" in read_page
    assert "sourcetexts.jsonl" in read_page


def test_a_slow_model_has_a_speed() -> None:
    """Less than one token a second is not none."""
    report = example_report()
    slow = {"dense": Evaluation([], [], [], [Speed(1, 128, 1.0, 0.2, 1)])}
    slow["pruned"] = Evaluation([], [], [], [Speed(1, 128, 1.0, 2.0, 1)])
    stages = {name: report.stages[name] for name in slow}
    text = read(replace(report, stages=stages, evaluations=slow)).text
    assert "5.00 → 0.500 tokens/s" in text
    assert "decode, tokens/s11285.000.500" in text


def test_a_size_that_stays_is_said_to_stay() -> None:
    """Not to change by "+0.0%"."""
    report = example_report(sparsity=0.5)
    dense = report.stages["dense"]
    masked = replace(dense, nonzero=dense.parameters // 2)
    text = read(replace(report, stages={"dense": dense, "pruned": masked})).text
    assert "sizeunchanged" in text
    assert "+0.0%" not in text


@pytest.mark.parametrize(
    ("created", "shown"),
    [("2020-01-02T03:04:05+00:00", "2020-01-02 03:04 UTC"), ("now", "now")],
)
def test_the_time_is_one_for_people(created: str, shown: str) -> None:
    """To the minute, with its zone."""
    assert f"{shown} · cpu" in read(replace(example_report(), created=created)).text


def test_what_was_asked_is_broken_between_arguments_only() -> None:
    """A number stays beside its name."""
    asked = [Asked("FLAP", "ratio 0.4, attention_ratio 0.2", "done")]
    text = read(replace(example_report(), asked=asked)).text
    assert "ratio\u00a00.4, attention_ratio\u00a00.2" in text


def test_a_picture_of_few_blocks_fits_a_phone() -> None:
    """Whole, on a page of 372 pixels; that of many blocks scrolls."""
    needed = r"min-width:(\d+)px"
    narrow, wide = (report_page(full_report(blocks=blocks), ".") for blocks in (30, 80))
    assert max(map(int, re.findall(needed, narrow))) <= 372
    assert max(map(int, re.findall(needed, wide))) > 372
