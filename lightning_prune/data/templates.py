"""Chats as text: by the tokenizer's chat template, or by Alpaca's prompt if it has none.

Source: the prompts of Taori et al. 2023, "Stanford Alpaca", which LLM-Pruner recovers with too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from string import ascii_letters
from typing import Any

from transformers import PreTrainedTokenizerBase

__all__ = ["ALPACA", "Message", "Unrenderable", "alpaca_text", "is_dated", "templated_text"]

ALPACA = {
    True: (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    False: (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
    ),
}
"""Prompts with and without an input, for tokenizers that have no chat template."""

Message = Mapping[str, Any]
Spans = list[tuple[int, int]]
"""Where in a text answers begin and end, in characters."""

NOW = "strftime_now"
"""The name by which templates ask for the date."""

_TRUSTED = ("user", "assistant", "tool", "function", "ipython", "developer")
"""Roles whose content a template may rewrite; what others say has to be in the text."""


class Unrenderable(ValueError):
    """A chat of which no text can be made."""


def alpaca_text(chat: Sequence[Message]) -> tuple[str, Spans]:
    """The text of a prompt and its answer, and where in it the answer is.

    A system message takes the place of Alpaca's own first lines.

    Raises:
        Unrenderable: the chat has more than that.
    """
    system, turns = (chat[:1], chat[1:]) if chat[0]["role"] == "system" else ([], chat)
    if [message["role"] for message in turns] != ["user", "assistant"]:
        raise Unrenderable(
            "holds a conversation, and this tokenizer has no chat template. Use an "
            "instruction-tuned model's tokenizer, or rows with a prompt and its answer "
            "(instruction, input, output), or with plain text"
        )
    asked, answer = turns
    opening, _, rest = ALPACA["input" in asked].partition("\n\n")
    prompt = rest.format(instruction=asked["content"], input=asked.get("input"))
    prompt = f"{system[0]['content'] if system else opening}\n\n{prompt}"
    text = prompt + answer["content"]
    return text, [(len(prompt), len(text))]


def templated_text(
    chat: Sequence[Message], tokenizer: PreTrainedTokenizerBase, whole: bool, day: date
) -> tuple[str, Spans]:
    """The text of a chat, and where in it the answers are.

    Args:
        chat: its messages.
        tokenizer: one with a chat template.
        whole: answers are not looked for.
        day: the day that the template is told is today.

    Raises:
        Unrenderable: the template raises, or leaves out what the chat says; or prompts cannot be
            told from answers.
        ValueError: the template itself is wrong.
    """
    messages = [_with_input(message) for message in chat]
    template = ""

    def render(count: int, **settings: Any) -> str:
        if not count:
            return ""
        arguments: dict[str, Any] = {"chat_template": template, "tokenize": False, **settings}
        return str(tokenizer.apply_chat_template(messages[:count], **arguments))

    try:
        template = _on_day(tokenizer.get_chat_template(), day)
        text = render(len(messages))
        _check_roles(messages, text)
        return text, [] if whole else _answers(messages, text, render)
    except Unrenderable:
        raise
    except Exception as error:  # a template is a program of somebody else's, and raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if type(error).__name__ == "TemplateSyntaxError":
            line = getattr(error, "lineno", 0)
            raise ValueError(
                f"the tokenizer's chat template is wrong in line {line} ({reason}). Mend it in "
                "chat_template.jinja, or take another tokenizer."
            ) from error
        raise Unrenderable(f"cannot be rendered by the chat template ({reason})") from error


def is_dated(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's chat template asks for the date."""
    return bool(tokenizer.chat_template) and NOW in str(tokenizer.chat_template)


def _answers(messages: Sequence[Message], text: str, render: Any) -> Spans:
    spans: Spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or not i:  # with nothing before it, it answers nothing
            continue
        before, behind = render(i, add_generation_prompt=True), render(i + 1)
        if not text.startswith(before):
            before = render(i)
        if not text.startswith(before) or not text.startswith(behind):
            raise Unrenderable(
                "is rendered by the chat template so that its beginning alone reads otherwise than "
                "the whole, and prompts cannot be told from answers. Set train_on_prompt: true"
            )
        if len(behind) <= len(before) and message["content"].strip():
            raise Unrenderable("has an answer that the chat template leaves out")
        spans.append((len(before), len(behind)))
    return spans


def _check_roles(messages: Sequence[Message], text: str) -> None:
    """Templates pass over roles that they do not know, and calls of tools, without a word."""
    for message in messages:
        calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
        if any(str(call.get("name")) not in text for call in calls):
            raise Unrenderable("calls a tool, which the chat template leaves out")
        if message["role"] not in _TRUSTED and message["content"].strip() not in text:
            raise Unrenderable(
                f"has a message of the role {message['role']!r}, which the chat template leaves out"
            )


def _with_input(message: Message) -> dict[str, Any]:
    """A message as templates know it, an instruction with its input."""
    if "input" not in message:
        return dict(message)
    return {"role": message["role"], "content": f"{message['content']}\n\n{message['input']}"}


@lru_cache(maxsize=8)
def _on_day(template: str, day: date) -> str:
    """A template to which `day` is today, at midnight.

    transformers gives templates the time of the clock, and hands them values alone, no functions;
    a macro of that name in front of the template, on a line of its own, is called in its place.
    """
    if NOW not in template:
        return template
    directives = "".join(
        f".replace({'%' + letter!r}, {day.strftime('%' + letter)!r})"
        for letter in ascii_letters
        if day.strftime("%" + letter) != "%" + letter
    )
    unpadded = "".join(
        f".replace({'%-' + letter!r}, {str(int(day.strftime('%' + letter)))!r})"
        for letter in "dHIjmMSUwWyY"
    )
    text = f"format.replace('%%', '\\0'){unpadded}{directives}.replace('\\0', '%')"
    return f"{{%- macro {NOW}(format) -%}}{{{{ {text} }}}}{{%- endmacro %}}\n{template}"
