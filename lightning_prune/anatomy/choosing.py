"""Linears chosen by patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from lightning_prune.anatomy.anatomy import Block

__all__ = ["as_patterns", "matching"]


def as_patterns(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """One pattern, or several, as several."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def matching(
    blocks: Sequence[Block], include: Sequence[str], exclude: Sequence[str]
) -> list[Block]:
    """The blocks that have such sites, with these.

    Args:
        blocks: with the sites to choose from.
        include: patterns of names, as in "*.mlp.*"; sites that match none are left out.
        exclude: patterns of names that are left out.

    Raises:
        ValueError: a pattern matches no site.
    """
    names = [site.name for block in blocks for site in block.sites]
    for setting, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"{setting}={pattern!r} matches no Linear; names are like {names[0]} "
                    f"and {names[-1]}, and * stands for anything"
                )

    def wanted(name: str) -> bool:
        return _any(name, include) and not _any(name, exclude)

    parts = [block.part(s for s in block.sites if wanted(s.name)) for block in blocks]
    return [part for part in parts if part.sites]


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
