"""From the rows of a file or a dataset to texts and chats, and what is done about damaged rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_prune.data.layouts import Chat, chat_of, conversation, known_layouts

__all__ = ["BadRows", "LeftOut", "Rows"]

BadRows = Literal["refuse", "leave_out"]
"""Whether a row that holds no text, or no chat that can be rendered, ends the run."""


@dataclass
class LeftOut:
    """Rows that are left out: how many, and why the first.

    Args:
        bad_rows: "refuse" makes the first an error.
    """

    bad_rows: BadRows
    reasons: list[str] = field(default_factory=list)

    def note(self, reason: str) -> None:
        """Leave one out.

        Raises:
            ValueError: bad rows are refused.
        """
        if self.bad_rows == "refuse":
            raise ValueError(f"{reason}. To go on without such rows: bad_rows=leave_out")
        self.reasons.append(reason)

    def say(self, total: int, name: str) -> None:
        """Warn, in one line, if any were left out.

        Raises:
            ValueError: all were.
        """
        count = len(self.reasons)
        if count and count == total:
            raise ValueError(f"none of {total:,} {name} can be used; the first: {self.reasons[0]}")
        if count:
            warnings.warn(
                f"{count:,} of {total:,} {name} are left out; the first: {self.reasons[0]}",
                stacklevel=3,
            )


@dataclass(frozen=True)
class Rows:
    """How rows are read.

    Args:
        column: the column that holds the text; or, if another than "text" is named, a conversation.
        bad_rows: what is done about a row that holds neither.
    """

    column: str = "text"
    bad_rows: BadRows = "refuse"

    def items(self, rows: Iterable[Any], source: str) -> list[Any]:
        """The texts of some rows, or their chats.

        A chat wins over a text in the column "text", which is then the same once more; another
        column that is named wins over a chat.

        Raises:
            ValueError: a row is bad, and bad rows are refused; or all are.
        """
        items: list[Any] = []
        left_out, number = LeftOut(self.bad_rows), 0
        for number, row in enumerate(rows, 1):
            name = f"row {number} of {source}"
            try:
                item = self._item(row)
            except ValueError as error:
                left_out.note(f"{name} {error}")
                continue
            if isinstance(item, Chat):
                item.row = name
            items.append(item)
        left_out.say(number, f"rows of {source}")
        return items

    def _item(self, row: Any) -> str | Chat:
        columns = list(row) if isinstance(row, dict) else []
        named = self.column in columns and self.column != "text"
        if named and isinstance(row[self.column], list):
            return conversation(row[self.column], self.column)
        chat = None if named or not columns else chat_of(row)
        if chat is not None:
            return chat
        if self.column not in columns:
            raise ValueError(
                f"has columns {', '.join(columns) or 'of no name'}, and neither {self.column!r} "
                f"nor a chat ({known_layouts()}). Name the one that holds the text: text_column=…"
            )
        text = row[self.column]
        if not isinstance(text, str):
            raise ValueError(f"holds {type(text).__name__} in {self.column!r}; it has to be a text")
        return text
