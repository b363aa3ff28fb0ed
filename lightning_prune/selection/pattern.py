"""How zeros may lie in a weight: anywhere, or N kept of every M consecutive inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Pattern"]


@dataclass(frozen=True)
class Pattern:
    """N:M sparsity: of every `group` consecutive input features of a row, `kept` stay.

    N is the number KEPT, as in the wording of the hardware. The codes of Wanda and SparseGPT mean
    the number removed; for 2:4 and 4:8 the two agree.
    """

    kept: int
    group: int

    def __post_init__(self) -> None:
        if not 0 < self.kept < self.group:
            raise ValueError(
                f"pattern {self} would keep {self.kept} of {self.group}; N:M means N kept of M "
                "consecutive inputs, with 0 < N < M, as in 2:4"
            )

    @classmethod
    def parse(cls, text: str | int) -> Pattern:
        """Read "N:M".

        YAML reads 2:4 without quotes as a number of base 60, 124; such a number is read back.

        Raises:
            ValueError: the text is not of that form, or N is not between 0 and M.
        """
        if isinstance(text, int):
            return cls(*divmod(text, 60))
        match = re.fullmatch(r"(\d+):(\d+)", str(text))
        if not match:
            raise ValueError(f"pattern {text!r} is not of the form N:M (N kept of M), as in '2:4'")
        return cls(int(match[1]), int(match[2]))

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1 - self.kept / self.group

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"
