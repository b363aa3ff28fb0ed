"""What is said of a class path that names no class."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_prune.class_paths import wrong_class_path


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a module, and modules that cannot be imported."""
    package = tmp_path / "package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("class Method: ...\nnumber = 3\n")
    (package / "needy.py").write_text("import nowhere_at_all")
    (package / "broken.py").write_text("raise ValueError('two\\nlines')")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("package_of_a_test.inner.Method", None),
        ("lightning_prune.Wanda", None),
        ("Method", None),  # no path
        (
            "package_of_a_test.inner.Mehtod",
            "the module package_of_a_test.inner has no class Mehtod. Did you mean "
            "package_of_a_test.inner.Method?",
        ),
        (
            "package_of_a_test.inner.Colour",
            "the module package_of_a_test.inner has no class Colour.",
        ),
        (
            "package_of_a_test.inner.number",
            "number in the module package_of_a_test.inner is no class.",
        ),
        (
            "package_of_a_test.iner.Method",
            "there is no module package_of_a_test.iner. Did you mean package_of_a_test.inner?",
        ),
        (
            "package_of_a_tset.inner.Method",
            "there is no module package_of_a_tset. Did you mean package_of_a_test?",
        ),
        ("qqqqqq.Method", "there is no module qqqqqq. Is its folder in PYTHONPATH?"),
        (
            "package_of_a_test.inner.Method.Other",
            "there is no module package_of_a_test.inner.Method.",
        ),
        (
            "package_of_a_test.needy.Method",
            "the module package_of_a_test.needy cannot be imported: ModuleNotFoundError: No module "
            "named 'nowhere_at_all'",
        ),
        (
            "package_of_a_test.broken.Method",
            "the module package_of_a_test.broken cannot be imported: ValueError: two lines",
        ),
        (
            "lightning_prune.Wnada",
            "the module lightning_prune has no class Wnada. Did you mean lightning_prune.Wanda?",
        ),
    ],
)
def test_module_or_class_is_missing(path: str, sentence: str | None) -> None:
    """And what stands there that is spelt like it."""
    assert wrong_class_path(path) == sentence
