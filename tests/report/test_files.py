"""One writer for all results."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from lightning_prune.report.files import Document, print_document, write
from lightning_prune.report.tables import Figure, Table

TABLE = Table("Perplexity", ("method", "perplexity"), [("Wanda", Figure(math.inf, "inf"))])


def test_each_part_becomes_a_file(tmp_path: Path) -> None:
    """Named by the result; what it has not is not written; the paths are given by name."""
    whole = Document(
        "sweep",
        {"perplexity": math.inf},
        written=["# m", TABLE, ""],
        rows=TABLE,
        picture="<svg/>",
        texts={"page.html": "<p>", "empty.svg": ""},
    )
    files = write(whole, tmp_path / "new")
    assert list(files) == ["sweep.md", "sweep.csv", "sweep.json", "sweep.svg", "page.html"]
    texts = {name: Path(path).read_text(encoding="utf-8") for name, path in files.items()}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(files)
    assert texts["sweep.md"] == (
        "# m\n\n## Perplexity\n\n| method | perplexity |\n| --- | ---: |\n| Wanda | inf |\n"
    )
    assert texts["sweep.csv"] == "method,perplexity\nWanda,inf\n"
    assert json.loads(texts["sweep.json"]) == {"perplexity": "inf"}
    assert list(write(Document("alone", {}), tmp_path)) == ["alone.json"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Of the disk, as it is."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write(Document("sweep", {}), tmp_path / "file" / "folder")


def test_lines_are_printed_whole_and_as_they_are() -> None:
    """No markup in them, and no line breaks."""
    file, line = io.StringIO(), "[red]" + "word " * 40
    print_document(Document("x", {}, printed=[TABLE, line]), Console(file=file, width=30))
    assert file.getvalue().startswith("Perplexity\n")
    assert f"\n{line}\n" in file.getvalue()
