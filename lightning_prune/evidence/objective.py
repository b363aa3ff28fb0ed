"""Of what gradients are taken."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NextToken", "Objective"]


class Objective:
    """A scalar of the calibration set."""


@dataclass(frozen=True)
class NextToken(Objective):
    """The mean cross entropy of the next token."""
