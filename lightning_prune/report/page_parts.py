"""Small parts of the report's page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["figure", "pairs", "smoothed"]


def smoothed(line: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean of the points around each; of short lines nothing."""
    reach = len(line) // 16
    if reach == 0:
        return []
    parts = [line[max(0, i - reach) : i + reach + 1] for i in range(len(line))]
    return [(line[i][0], sum(y for _, y in part) / len(part)) for i, part in enumerate(parts)]


def figure(title: str, keys: Mapping[str, str], picture: str) -> str:
    """A picture with its title and the meaning of its colours, by class."""
    legend = "".join(
        f'<span class="key"><i class="{kind}"></i>{escape(text)}</span>'
        for kind, text in keys.items()
    )
    caption = f'<figcaption><span class="title">{escape(title)}</span>{legend}</figcaption>'
    return f"<figure>{caption}{picture}</figure>"


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values below each other; values in values by their path."""
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(text)}</dd>" for name, text in _flat(values)
    )
    return f"<dl>{items}</dl>" if items else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of what is given; None is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)
