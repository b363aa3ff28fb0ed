"""What models and texts are called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_prune.report.names import (
    file_names,
    model_name,
    short_names,
    unit_names,
    without_places,
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("quickstart", "quickstart"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("/data/models/smollm2-135m", "smollm2-135m"),
        ("../models/smollm2-135m/", "smollm2-135m"),
        ("/runs/flap/pruned", "flap/pruned"),
        ("./runs/flap/recovered", "flap/recovered"),
        ("/hub/models--meta-llama--Llama-3.2-1B/snapshots/5a8c", "meta-llama/Llama-3.2-1B"),
        ("/", "/"),
    ],
)
def test_a_model_is_called_by_its_name(path: str, name: str) -> None:
    """That of its folder, of its run, or on the hub."""
    assert model_name(path) == name


def test_a_group_of_one_query_head_is_a_head() -> None:
    """As of most image classifiers; not where one block of many shares a key/value head."""
    alone, shared = SimpleNamespace(heads=4, kv_heads=4), SimpleNamespace(heads=4, kv_heads=2)
    assert unit_names([alone, alone])["group"] == "attention heads"
    assert unit_names([alone, shared])["group"] == "GQA groups"


def test_a_folder_beside_one_is_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it could be a name on the hub."""
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_name("runs/mine") == "mine"
    assert model_name("org/mine") == "org/mine"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/texts/calibration.jsonl", "calibration.jsonl"),
        ("['/home/me/a b.txt', 'wikitext2']", "['a b.txt', 'wikitext2']"),
        ('Circuit(units="/data/circuit.json")', 'Circuit(units="circuit.json")'),
        ("Distillation(teacher='/runs/flap/pruned')", "Distillation(teacher='flap/pruned')"),
        ("org/model, 3/4 of it, runs/mine", "org/model, 3/4 of it, runs/mine"),
    ],
)
def test_places_are_called_by_their_names(text: str, shown: str) -> None:
    """Alone or quoted in what an object says of itself; other slashes stay."""
    assert without_places(text) == shown


def test_names_are_as_short_as_tells_them_apart() -> None:
    """Names on the hub stay whole."""
    expected = {
        "/a/one/test.txt": "one/test.txt",
        "/a/two/test.txt": "two/test.txt",
        "/b/valid.txt": "valid.txt",
        "/a/one/x/": "x",
        "ptb": "ptb",
        "org/text": "org/text",
    }
    assert short_names(expected) == expected


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("/r/one/circuit.json", "/r/two/circuit.json"), ["one", "two"]),
        (("/r/a/x/circuit.json", "/r/b/x/circuit.json"), ["a", "b"]),
        (("/r/general.safetensors", "/r/other.safetensors"), ["general", "other"]),
        (("/r/a/c.json", "/r/b/c.json", "/r/d.json"), ["a/c", "b/c", "d"]),
        (("/r/a.json", "/r/a.safetensors"), ["a.json", "a.safetensors"]),
    ],
)
def test_files_are_called_by_what_tells_them_apart(
    paths: tuple[str, ...], names: list[str]
) -> None:
    """What all of them end with says nothing."""
    assert list(file_names(paths).values()) == names
