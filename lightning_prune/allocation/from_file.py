"""Shares from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lightning_prune.allocation.base import Allocation

__all__ = ["FromFile"]


class FromFile(Allocation):
    """One given share for each block of the model, from a JSON file.

    The file holds a list, one fraction a block, or an object from block numbers to fractions, or
    such a one under the key "shares". Blocks that are not pruned may be left out.

    Args:
        path: of the file.

    Raises:
        ValueError: no such file, or something else in it; later, if a block that is pruned has no
            share, or the mean of the shares, by the blocks' sizes, is not the budget.
    """

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._read()

    def _read(self) -> dict[int, float]:
        try:
            content = json.loads(Path(self.path).read_text(encoding="utf-8"))
            if isinstance(content, dict):
                content = content.get("shares", content)
            pairs = content.items() if isinstance(content, dict) else enumerate(content)
            shares = {int(block): float(share) for block, share in pairs}
        except OSError as error:
            raise ValueError(
                f"FromFile: path={self.path!r} cannot be read: {error.strerror}"
            ) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"path={self.path!r} is no JSON file with the share of each block, as "
                f"[0.2, 0.3, …] or {{'0': 0.2, '1': 0.3, …}}: {error!r}"
            ) from error
        wrong = {block: share for block, share in shares.items() if not 0 <= share < 1}
        if wrong or not shares:
            raise ValueError(f"the shares in {self.path} must be in [0, 1); see {wrong}")
        return shares

    @property
    def identity(self) -> str:
        """With what the file holds."""
        return f"{self!r} {sorted(self._read().items())}"

    def known_importance(self, blocks: Sequence[int], total: int) -> list[float]:
        """The shares of the blocks that are pruned, from the file."""
        shares = self._read()
        lacking = [block for block in blocks if block not in shares]
        strange = [block for block in shares if not 0 <= block < total]
        if lacking or strange:
            raise ValueError(
                f"{self.path} has shares for blocks {sorted(shares)}; the model has blocks 0 to "
                f"{total - 1}, and {lacking or 'no others'} are lacking of those that are pruned"
            )
        return [shares[block] for block in blocks]

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The shares that the file gives to the blocks, if they meet the budget."""
        mean = sum(s * n for s, n in zip(importance, sizes, strict=True)) / sum(sizes)
        if abs(mean - budget) > 5e-4:
            raise ValueError(
                f"the shares in {self.path} remove {mean:.4f} overall, and {budget:.4f} is asked "
                f"for; ask for {mean:.4f}, or change the file"
            )
        return list(importance)
