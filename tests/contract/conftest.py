"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.vit import registered


@pytest.fixture
def images_known() -> Iterator[None]:
    """The table of a family of image classifiers is there for one test."""
    with registered():
        yield
