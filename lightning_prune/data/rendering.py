"""How texts and chats become tokens, besides the tokenizer and the length of a window."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from lightning_prune.data.rows import BadRows

__all__ = ["Rendering", "day_of", "today"]


def today() -> date:
    """The date of this machine."""
    return date.today()


def day_of(setting: str | None) -> date:
    """The day of a setting `date`; None is today.

    Raises:
        ValueError: it is no date.
    """
    try:
        return today() if setting is None else date.fromisoformat(setting)
    except (TypeError, ValueError) as error:
        raise ValueError(f"date={setting!r} is no date; write it as 2026-11-27") from error


@dataclass(frozen=True)
class Rendering:
    """How texts and chats become tokens.

    Args:
        begin_token: what windows of text begin with; see `tokens.begin_tokens`.
        train_on_prompt: of chats, prompts have labels too; else answers alone have.
        day: the day that chat templates are told is today.
        bad_rows: what is done about a chat that cannot be rendered.
    """

    begin_token: bool | None = None
    train_on_prompt: bool = False
    day: date = field(default_factory=today)
    bad_rows: BadRows = "refuse"
