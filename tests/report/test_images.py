"""Accuracy in reports, and the images on which stages differ."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune.report.differing import differing, picture_of, some_that_differ, with_differing
from lightning_prune.report.grid import Cell, Grid, grid_document
from lightning_prune.report.measures import ACCURACY, PERPLEXITY, points
from lightning_prune.report.report import Differing, Report, StageMetrics
from lightning_prune.report.stages import stage_table


def stage(accuracy: float, parameters: int = 100) -> StageMetrics:
    return StageMetrics(None, parameters, parameters, 4 * parameters, 50.0, accuracy, None)


REPORT = Report(
    "vit",
    "Taylor(ratio=0.25)",
    "2026-11-28",
    stages={"dense": stage(0.9), "pruned": stage(0.8512, 80)},
    settings={"validation_windows": 1200, "unit": "images"},
)


def test_a_report_of_images_has_accuracy_in_place_of_perplexity() -> None:
    """In points; and nothing of tokens."""
    table = stage_table(REPORT)
    assert [str(column) for column in table.header] == [
        *("stage", "accuracy", "parameters", "zeros", "size", "images/s"),
    ]
    assert table.texts[1][1] == "85.12% (−4.88)"
    assert "1,200 images" in table.title
    assert Report.from_json(REPORT.to_json()) == REPORT


def test_points_are_differences() -> None:
    """Of shares, in hundredths; perplexity has factors."""
    assert points(0.5, 0.25) == "+25.00"
    assert points(None, 0.5) == ""
    assert ACCURACY.figure(stage(0.5), stage(0.75)).relation == "−25.00"
    assert (
        PERPLEXITY.figure(
            replace(stage(0.5), perplexity=6.0), replace(stage(0.5), perplexity=4.0)
        ).relation
        == "1.50x"
    )


def test_a_grid_of_accuracies_has_the_highest_in_bold() -> None:
    """Where the measure says so."""
    cells = [
        Cell("A", "50%", accuracy=0.7, perplexity=2.0),
        Cell("B", "50%", accuracy=0.8, perplexity=3.0),
    ]
    settings = {"measure": "accuracy", "windows": 9, "length": None}
    grid = Grid("vit", 0.9, cells, settings)
    assert grid.best("50%") == cells[1]
    assert Grid("vit", 0.9, cells, {}).best("50%") == cells[0]
    document = grid_document(grid)
    assert "accuracy by method and sparsity" in str(document.written[0])
    assert "9 images" in str(document.written[1])
    assert "80.00%" in document.picture


def test_images_that_the_first_stage_has_right_come_first() -> None:
    """Of all that differ, as many as there is room for."""
    label_N = torch.tensor([0, 1, 2, 3, 4])
    said = {"dense": torch.tensor([0, 9, 2, 3, 4]), "pruned": torch.tensor([9, 8, 2, 8, 4])}
    assert some_that_differ(said, label_N) == [0, 3, 1]
    assert some_that_differ(said, label_N, most=1) == [0]
    assert some_that_differ({"dense": label_N}, label_N) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_a_png_of_the_pixels(channels: int) -> None:
    """From the darkest to the brightest of each channel; a large one is thinned out."""
    pixels = torch.randn(channels, 6, 4, generator=torch.Generator().manual_seed(0))
    kind, _, data = picture_of(pixels).partition("base64,")
    assert kind == "data:image/png;"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (4, 6)
    found = torch.from_numpy(np.array(image)).float().view(6, 4, channels).permute(2, 0, 1)
    low, high = pixels.amin(dim=(1, 2), keepdim=True), pixels.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(found, 255 * (pixels - low) / (high - low), atol=0.51, rtol=0)
    assert len(picture_of(torch.randn(3, 448, 448))) < 60_000


def test_a_page_shows_what_each_stage_says() -> None:
    """Escaped, like all that comes from a model's config."""
    said = {"dense": torch.tensor([1, 0]), "pruned": torch.tensor([0, 0])}
    batches = [{"pixel_values": torch.randn(3, 1, 4, 4), "labels": torch.tensor([-100, 1, 0])}]
    report = with_differing(REPORT, said, torch.tensor([1, 0]), batches, {0: "cat", 1: "<dog>"})
    (one,) = report.differing
    assert (one.label, one.said) == ("<dog>", {"dense": "<dog>", "pruned": "cat"})
    assert report.settings["differing"] == 1
    page = differing(report)
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    assert "<div class=wrong>pruned: cat</div>" in page
    assert differing(REPORT) == ""
    assert Report.from_json(report.to_json()).differing == [Differing(**vars(one))]
