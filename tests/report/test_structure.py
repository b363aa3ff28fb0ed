from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from lightning_prune.report.report import Report
from lightning_prune.report.structure import structure_plots, structure_svg
from lightning_prune.report.svg import width_of
from tests.report.example import example_report

SVG = "{http://www.w3.org/2000/svg}"


def drawn(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(structure_svg(report))


def rects(svg: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [r for r in svg.iter(f"{SVG}rect") if kind in r.get("class", "").split()]


def texts(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter(f"{SVG}text")]


def height(rect: ElementTree.Element) -> float:
    return float(rect.get("height", "nan"))


@pytest.mark.parametrize("blocks", [1, 5, 32, 80, 128])
def test_every_block_has_its_bars(blocks: int) -> None:
    """One bar per block for query heads, key/value heads and neurons, as of dense ones."""
    svg = drawn(example_report(blocks))
    for kind in ("heads", "kv", "neurons"):
        assert len(rects(svg, kind)) == blocks
    assert len(rects(svg, "dense")) == 2 * blocks


def test_bars_are_as_high_as_what_was_kept() -> None:
    """Block 1 of the example keeps 6 of 8 query heads, 3 key/value heads and 89 of 90 neurons."""
    svg = drawn(example_report(4))
    dense, dense_neurons = (height(rects(svg, "dense")[i]) for i in (1, 4 + 1))
    assert height(rects(svg, "heads")[1]) / dense == pytest.approx(6 / 8, abs=0.01)
    assert height(rects(svg, "kv")[1]) / dense == pytest.approx(3 / 8, abs=0.01)
    neurons = height(rects(svg, "neurons")[1]) / dense_neurons
    assert neurons == pytest.approx(89 / 90, abs=0.005)


def test_masks_are_drawn_per_site_and_block() -> None:
    """A cell for every site of every block, a name for every site, and its mean."""
    svg = drawn(example_report(6, sparsity=0.5))
    assert len(rects(svg, "cell")) == 6 * 2
    assert {"self_attn.q_proj", "mlp.up_proj", "50.0%", "25.0%"} <= set(texts(svg))


def test_a_model_without_masks_has_no_third_panel() -> None:
    """Sites without zeros say nothing, and neither do a few that were there by chance."""
    for sparsity in (0.0, 0.001):
        svg = drawn(example_report(6, sparsity))
        assert not rects(svg, "cell")
        assert "mlp.up_proj" not in texts(svg)


def test_a_site_that_a_block_lacks_is_left_blank() -> None:
    """Blocks may differ in their sites."""
    report = example_report(3, sparsity=0.5)
    del report.blocks[1].sparsity["mlp.up_proj"]
    assert len(rects(drawn(report), "cell")) == 5


def test_a_block_that_lost_everything_keeps_its_place() -> None:
    """A removed block shows its dense outline and an empty bar."""
    report = example_report(2)
    report.blocks[1] = replace(report.blocks[1], heads=0, kv_heads=0, width=0)
    svg = drawn(report)
    assert all(height(rect) > 0 for rect in rects(svg, "dense"))
    assert height(rects(svg, "heads")[1]) == 0
    assert height(rects(svg, "neurons")[1]) == 0


def test_nothing_lies_outside_the_picture() -> None:
    """All rectangles are within the view box, for any number of blocks."""
    for blocks in (1, 8, 128):
        svg = drawn(example_report(blocks, sparsity=0.3))
        _, _, width, full = map(float, svg.get("viewBox", "").split())
        for rect in svg.iter(f"{SVG}rect"):
            assert float(rect.get("x", "0")) >= 0
            assert float(rect.get("x", "0")) + float(rect.get("width", "0")) <= width
            assert float(rect.get("y", "0")) + height(rect) <= full


def test_the_picture_can_be_read_aloud() -> None:
    """A title and a description with the totals, for screen readers."""
    svg = drawn(example_report(4))
    title, description = svg.findtext(f"{SVG}title"), svg.findtext(f"{SVG}desc")
    assert title == "tiny: structure after GQATaylor(ratio=0.25)"
    assert description is not None
    assert "query heads 20 of 32 (62.5%)" in description
    assert svg.get("aria-labelledby") == "structure-title structure-desc"


@pytest.mark.parametrize("model", ["a<b>&\"c'", "\x00bell\x07\ud800", "\u6a21\u578b \U0001f999"])
def test_odd_model_names_stay_valid_xml(model: str) -> None:
    """Markup is escaped, and characters that XML forbids are dropped."""
    svg = structure_svg(example_report(model=model))
    svg.encode("utf-8")
    title = ElementTree.fromstring(svg).findtext(f"{SVG}title")
    allowed = "".join(c for c in model if c >= " " and c != "\ud800")
    assert title == f"{allowed}: structure after GQATaylor(ratio=0.25)"


def test_a_long_model_name_keeps_both_its_ends() -> None:
    """A long path is shortened in the middle, and stands in full in the title element."""
    model = "start/" + "x" * 300 + "/end"
    svg = drawn(example_report(model=model))
    (short,) = [text for text in texts(svg) if text.startswith("start/")]
    assert len(short) < 100
    assert short.endswith("/end")
    assert model in (svg.findtext(f"{SVG}title") or "")


def test_no_blocks_cannot_be_drawn() -> None:
    """An empty picture would say that nothing was kept."""
    with pytest.raises(ValueError, match="no blocks"):
        structure_svg(example_report(blocks=0))


@pytest.mark.parametrize("blocks", [4, 16, 30, 80])
def test_numbers_do_not_run_into_one_another(blocks: int) -> None:
    """Values over bars, and the numbers of blocks, have room between them, or are left out."""
    for plot in structure_plots(example_report(blocks, sparsity=0.5).blocks):
        svg = ElementTree.fromstring(f"<svg xmlns='{SVG[1:-1]}'>{''.join(plot.body)}</svg>")
        rows: dict[float, list[tuple[float, float]]] = {}
        for element in svg.iter(f"{SVG}text"):
            if element.get("text-anchor") == "middle":
                width = width_of(element.text or "", float(element.get("font-size", "11")))
                place = float(element.get("x", "nan"))
                row = rows.setdefault(float(element.get("y", "nan")), [])
                row.append((place - width / 2, place + width / 2))
        for row in rows.values():
            assert all(b[0] - a[1] >= 3 for a, b in pairwise(sorted(row)))
