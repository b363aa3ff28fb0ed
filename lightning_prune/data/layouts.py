"""Which columns of a row hold a prompt and its answer: the layouts of instruction sets.

A row is a chat by the first layout that fits. What else of it belongs to the prompt (a system
prompt, an input, a context, earlier turns) goes into the chat; what cannot go in is refused, never
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CONVERSATIONS", "PAIRS", "Chat", "chat_of", "conversation", "known_layouts"]

CONVERSATIONS = {
    "messages": "UltraChat 200k, Tulu, No Robots, SmolTalk, NuminaMath",
    "conversations": "ShareGPT, OpenHermes 2.5, SlimOrca, WizardLM V2, LIMA, Magpie",
    "conversation": "Capybara, WildChat, LMSYS-Chat",
    "data": "UltraChat",
}
"""Columns of turns: messages with role and content, or from and value; an input and its output; or
texts of user and assistant in turn."""

PAIRS = {
    ("instruction", "output"): "Alpaca, Code Alpaca, WizardLM, Evol-Instruct, Dolphin",
    ("instruction", "response"): "Dolly, LaMini, GPTeacher",
    ("prompt", "response"): "GPT4All, HelpSteer",
    ("prompt", "completion"): "Self-Instruct, CodeAlpaca 20K",
    ("question", "response"): "OpenOrca",
    ("question", "answer"): "GSM8K, sql-create-context, Glaive Code Assistant",
    ("question", "generated_solution"): "OpenMathInstruct",
    ("query", "response"): "MetaMathQA",
    ("problem", "solution"): "MATH",
    ("problem", "generated_solution"): "OpenMathInstruct-2",
    ("message_1", "message_2"): "CAMEL",
    ("definition", "targets"): "Natural Instructions",
    ("inputs_pretokenized", "targets_pretokenized"): "P3",
    ("inputs", "targets"): "FLAN, xP3, Aya",
}
"""Columns of a prompt and its answer."""

CONTEXTS = ("input", "inputs", "context")
"""Columns that a prompt is about, and that follow it."""

SYSTEM = ("system_prompt", "system", "system_message")
"""Columns that stand in front of a prompt, or of a conversation that has no system message."""

ROLES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
"""Other names of the two roles."""

REFUSED = {
    ("chosen", "rejected"): (
        "holds a preference ('chosen' and 'rejected'), from which nothing is learnt here. To learn "
        "the chosen answers alone, name that column: text_column=chosen"
    ),
    ("message_id", "parent_id", "text"): (
        "is one message of a tree ('message_id', 'parent_id', as in OpenAssistant's): its prompt "
        "is in other rows. Write each path from a root into one row, as 'messages'"
    ),
}
"""Columns of which no chat can be made, and why."""


class Chat(list[dict[str, Any]]):
    """Messages with "role" and "content", a text each.

    Attributes:
        row: where they come from, as an error calls it: "row 8 of chats.jsonl"; else empty.
    """

    row: str = ""


def known_layouts() -> str:
    """All layouts, for an error."""
    pairs = ", ".join(f"{prompt} and {answer}" for prompt, answer in PAIRS)
    return f"turns in {', '.join(CONVERSATIONS)}; or a prompt and its answer in {pairs}"


def chat_of(row: Mapping[str, Any]) -> Chat | None:
    """The chat that a row holds; None if it holds none.

    The input, or context, of a prompt stands apart in its message, as "input".

    Raises:
        ValueError: the row has the columns of a chat, and something else in them; or its columns
            are known and cannot be learnt from.
    """
    for name in CONVERSATIONS:
        turns = row.get(name)
        if name in row and _fits(name, turns):
            _refuse_tools(row)
            chat = conversation(turns, name)
            if not any(message["role"] == "system" for message in chat):
                chat[:0] = _system(row)
            return chat
    for columns, reason in REFUSED.items():
        if all(column in row for column in columns):
            raise ValueError(reason)
    pair = next((pair for pair in PAIRS if pair[0] in row and pair[1] in row), None)
    return None if pair is None else _pair(row, *pair)


def conversation(turns: Any, name: str) -> Chat:
    """The messages of a column of turns.

    Raises:
        ValueError: they are no turns, or a turn is no text.
    """
    if name != "messages" and turns and _texts(turns):
        sides = ("user", "assistant")
        return Chat({"role": sides[i % 2], "content": text} for i, text in enumerate(turns))
    if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
        messages = [message for turn in turns for message in _messages(turn)]
        if all("role" in message for message in messages):
            return Chat(_message(message, i) for i, message in enumerate(messages, 1))
    raise ValueError(
        f"holds {type(turns).__name__} in {name!r} that is no list of messages with 'role' and "
        "'content', or 'from' and 'value', or of texts in turn"
    )


def _pair(row: Mapping[str, Any], prompt: str, answer: str) -> Chat:
    for name in (prompt, answer):
        if not isinstance(row[name], str):
            raise ValueError(f"holds {type(row[name]).__name__} in {name!r}; it has to be a text")
    _refuse_tools(row)
    asked = {"role": "user", "content": row[prompt]}
    about = [_text(row, name) for name in CONTEXTS if name not in (prompt, answer)]
    if any(about):
        asked["input"] = "\n\n".join(text for text in about if text)
    turns = [*_system(row), *_history(row), asked, {"role": "assistant", "content": row[answer]}]
    return Chat(turns)


def _fits(name: str, turns: Any) -> bool:
    """Whether a column of this name holds turns; others may be called so too."""
    return {"conversation": isinstance(turns, list), "data": _texts(turns)}.get(name, True)


def _messages(turn: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of one turn, in the names of ours."""
    if "from" in turn and "value" in turn:
        return [{"role": turn["from"], "content": turn["value"]}]
    if "input" in turn and "output" in turn and "role" not in turn:
        sides = (("user", "input"), ("assistant", "output"))
        return [{"role": role, "content": turn[name]} for role, name in sides]
    return [dict(turn)]


def _message(message: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A message whose content is a text; what is said of it and is null is left out."""
    role, content = message["role"], message.get("content")
    if content is None and message.get("tool_calls"):
        content = ""
    if isinstance(content, list):
        content = "".join(_part(part, number) for part in content)
    if not isinstance(content, str):
        raise ValueError(
            f"holds {type(content).__name__} as the content of message {number}; it has to be a "
            "text, or parts of text"
        )
    if not isinstance(role, str):
        raise ValueError(f"holds {type(role).__name__} as the role of message {number}")
    others = {name: value for name, value in message.items() if value is not None}
    role = role.lower()
    return others | {"role": ROLES.get(role, role), "content": content}


def _part(part: Any, number: int) -> str:
    """The text of a part of a content."""
    text = part.get("text") if isinstance(part, dict) else part
    if not isinstance(text, str):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise ValueError(
            f"holds a part of type {kind!r} in message {number}; parts have to be text"
        )
    return text


def _system(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The system message that stands in a column of its own."""
    texts = [text for name in SYSTEM if (text := _text(row, name))]
    return [{"role": "system", "content": texts[0]}] if texts else []


def _history(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns before a prompt, as pairs of texts."""
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or not all(_texts(pair) and len(pair) == 2 for pair in pairs):
        raise ValueError("holds something else than pairs of texts in 'history'")
    return conversation([text for pair in pairs for text in pair], "history") if pairs else []


def _text(row: Mapping[str, Any], name: str) -> str:
    """A text that may be missing, null or blank: empty then."""
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"holds {type(value).__name__} in {name!r}; it has to be a text")
    return value if value is not None and value.strip() else ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _refuse_tools(row: Mapping[str, Any]) -> None:
    tools = row.get("tools")
    if tools and tools not in ("[]", "null"):
        raise ValueError(
            "holds 'tools', which are not rendered here. Put them into a system message"
        )
