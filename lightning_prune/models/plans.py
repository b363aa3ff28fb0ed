"""All that pruning has decided on one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from lightning_prune.plan import Plan, joined

__all__ = ["Plans"]


class Plans(Sequence[Plan]):
    """The plans that were applied to a model, in their order, and what they come to together.

    Attributes:
        merged: the decisions of all of them in one plan, merged when one is added; None where
            there is none.
    """

    def __init__(self) -> None:
        self._plans: list[Plan] = []
        self.merged: Plan | None = None

    def append(self, plan: Plan) -> None:
        """Add a plan that was made on what the ones before it left.

        Raises:
            ValueError: it does not follow them; see `plan.joined`.
        """
        self.merged = plan if self.merged is None else joined(self.merged, plan)
        self._plans.append(plan)

    @property
    def dropped(self) -> set[int]:
        """Indices, in the dense model, of the blocks that were taken out as a whole."""
        return self.merged.dropped if self.merged is not None else set()

    def __len__(self) -> int:
        return len(self._plans)

    @overload
    def __getitem__(self, index: int) -> Plan: ...

    @overload
    def __getitem__(self, index: slice) -> list[Plan]: ...

    def __getitem__(self, index: int | slice) -> Plan | list[Plan]:
        return self._plans[index]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._plans})"
