"""Chats as text: what a template cannot render, what it leaves out, and the date that it writes."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast as Tokenizer

from lightning_prune.data import TextData
from lightning_prune.data.templates import templated_text
from tests.data import words
from tests.data.words import chat

END = "{% if add_generation_prompt %}<assistant> {% endif %}"
PLAIN = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}" + END
JOINED = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + '\n' }}{% endfor %}" + END
)
STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    + PLAIN
)


def leaving_out(role: str) -> str:
    """A template that passes over a role without a word."""
    one = "<{{ m['role'] }}> {{ m['content'] }}\n{% endif %}{% endfor %}"
    return "{% for m in messages %}{% if m['role'] != '" + role + "' %}" + one + END


DAY = date(2026, 11, 7)


def tokenizer(template: str) -> Tokenizer:
    made = words.tokenizer()
    made.chat_template = template
    return made


def rows(at: int = 7, **changed: Any) -> list[dict[str, Any]]:
    """Sixty chats; one of them with another answer."""
    made = [chat(i) for i in range(60)]
    made[at]["messages"][1] |= changed
    return made


def data_of(tmp_path: Path, content: list[dict[str, Any]], **settings: Any) -> TextData:
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, content)))
    held = [chat(100 + i) for i in range(4)]
    (tmp_path / "validation.jsonl").write_text("\n".join(map(json.dumps, held)))
    return TextData(str(tmp_path), length=200, nsamples=4, **settings)


def learnt(data: TextData, by: Tokenizer) -> list[str]:
    windows = data._windows("train")
    pairs = zip(windows.windows, windows.labels, strict=True)
    return [by.decode(ids[labels != -100]) for ids, labels in pairs]


# --- content ---


@pytest.mark.parametrize("template", [PLAIN, JOINED])
@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "yes "}, {"type": "text", "text": "it is"}],
        ["yes ", "it is"],
        "yes it is",
    ],
)
def test_parts_of_text_are_one_text(tmp_path: Path, template: str, content: Any) -> None:
    """Never the way that Python writes a list, whatever the template does with it."""
    by = tokenizer(template)
    data = data_of(tmp_path, rows(content=content)).attach(by, 512)
    assert "yes it is\n" in learnt(data, by)
    assert not any("{" in answer or "[" in answer for answer in learnt(data, by))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"content": 42}, "holds int as the content of message 2"),
        ({"content": None}, "holds NoneType as the content of message 2"),
        ({"content": {"text": "a"}}, "holds dict as the content of message 2"),
        ({"content": [{"type": "image", "image": "a.png"}]}, "holds a part of type 'image' in mes"),
        ({"role": 3}, "holds int as the role of message 2"),
    ],
)
def test_content_that_is_no_text_is_refused_with_file_and_row(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """When it is read."""
    with pytest.raises(ValueError, match=rf"row 8 of .*train.jsonl {message}") as told:
        data_of(tmp_path, rows(**changed)).attach(tokenizer(PLAIN), 512).setup("fit")
    assert "\n" not in str(told.value)


def test_a_message_that_calls_a_tool_says_nothing(tmp_path: Path) -> None:
    """Its content is null in many files."""
    called = rows(content=None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])
    by = tokenizer(PLAIN)
    with pytest.warns(UserWarning, match="1 of 60 chats .* have no answer"):
        assert "None" not in "".join(learnt(data_of(tmp_path, called).attach(by, 512), by))


def test_a_call_of_a_tool_that_the_template_leaves_out_is_told(tmp_path: Path) -> None:
    """Otherwise an empty answer would be learnt in its place, before the one that follows."""
    call = {"type": "function", "function": {"name": "search", "arguments": {"of": "x"}}}
    content = rows(content=None, tool_calls=[call])
    content[7]["messages"].append({"role": "assistant", "content": "found"})
    with pytest.raises(ValueError, match=r"row 8 of .*train.jsonl calls a tool, which the chat te"):
        data_of(tmp_path, content).attach(tokenizer(PLAIN), 512).setup("fit")
    calls = "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}"
    by = tokenizer(calls + "{% endfor %}" + PLAIN)
    data_of(tmp_path, content, train_on_prompt=True).attach(by, 512).setup("fit")


def test_what_is_said_before_any_prompt_is_not_learnt(tmp_path: Path) -> None:
    """Nothing says where it begins behind what the template writes in front of all chats."""
    content = rows(content="yes")
    content[7]["messages"].insert(0, {"role": "assistant", "content": "welcome"})
    by = tokenizer("you are kind\n" + PLAIN)
    answers = learnt(data_of(tmp_path, content).attach(by, 512), by)
    assert not any("kind" in answer or "welcome" in answer for answer in answers)
    assert any("yes" in answer for answer in answers)


# --- templates that refuse ---


def test_several_templates_without_a_default_are_told_in_one_line(tmp_path: Path) -> None:
    """As transformers says it, with file and row."""
    by = tokenizer(PLAIN)
    by.chat_template = {"rag": PLAIN, "tool_use": PLAIN}
    with pytest.raises(ValueError, match=r"row 1 of .* multiple chat templates with no default"):
        data_of(tmp_path, rows()).attach(by, 512).setup("fit")


@pytest.mark.parametrize("train_on_prompt", [False, True])
@pytest.mark.parametrize(
    ("template", "message"),
    [
        (STRICT, r"cannot be rendered by the chat template \(TemplateError: no system mess"),
        (
            PLAIN + "{% if messages|length > 2 %}{{ messages[0].a.b }}{% endif %}",
            r"cannot be rendered by the chat template \(UndefinedError: ",
        ),
        (leaving_out("system"), "has a message of the role 'system', which the chat template leav"),
    ],
)
def test_what_a_template_raises_or_drops_is_told_with_file_and_row(
    tmp_path: Path, template: str, message: str, train_on_prompt: bool
) -> None:
    """In one line, also where nobody asks for answers alone."""
    content = rows()
    content[7]["messages"].insert(0, {"role": "system", "content": "be kind"})
    data = data_of(tmp_path, content, train_on_prompt=train_on_prompt)
    with pytest.raises(ValueError, match=rf"row 8 of .*train.jsonl {message}") as told:
        data.attach(tokenizer(template), 512).setup("fit")
    assert "\n" not in str(told.value)


def test_answers_that_a_template_leaves_out_are_told(tmp_path: Path) -> None:
    """Not as chats without an answer."""
    data = data_of(tmp_path, rows()).attach(tokenizer(leaving_out("assistant")), 512)
    with pytest.raises(ValueError, match="row 1 of .* has an answer that the chat template leaves"):
        data.setup("fit")


def test_a_role_that_the_template_does_not_know_is_told(tmp_path: Path) -> None:
    """It would pass over it; one that it renders may be called anything."""
    content = rows()
    content[7]["messages"].insert(1, {"role": "narrator", "content": "it rains"})
    passing = tokenizer(leaving_out("narrator"))
    with pytest.raises(ValueError, match="row 8 of .*role 'narrator', which the chat template"):
        data_of(tmp_path, content).attach(passing, 512).setup("fit")
    data_of(tmp_path, content).attach(tokenizer(PLAIN), 512).setup("fit")


def test_other_names_of_the_answering_role_are_answers(tmp_path: Path) -> None:
    """Gemma's data calls it model."""
    by = tokenizer(PLAIN)
    data = data_of(tmp_path, rows(role="model", content="yes it is")).attach(by, 512)
    assert "yes it is\n" in learnt(data, by)


def test_a_template_with_an_error_in_it_is_wrong_for_all_rows(tmp_path: Path) -> None:
    """And is said so; leaving rows out would leave none."""
    wrong = PLAIN.replace("endfor %}", "endfor }")
    data = data_of(tmp_path, rows(), bad_rows="leave_out").attach(tokenizer(wrong), 512)
    with pytest.raises(ValueError, match="chat template is wrong in line 2 .*unexpected '}'"):
        data.setup("fit")


# --- rows that are left out ---


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    """Those that hold no chat, and those that cannot be rendered: in a line each."""
    content = rows(content=42)
    for i in (3, 9):
        content[i]["messages"].insert(0, {"role": "system", "content": "be kind"})
    by = tokenizer(STRICT)
    data = data_of(tmp_path, content, bad_rows="leave_out").attach(by, 512)
    with (
        pytest.warns(
            UserWarning, match=r"2 of 59 chats of the train .*first: row 4 of .*no system"
        ),
        pytest.warns(
            UserWarning, match=r"1 of 60 rows of .*train.jsonl are left out; the first: row 8"
        ),
    ):
        assert len(learnt(data, by)) == 57
    with pytest.warns(UserWarning, match="left out"):
        assert len(data._windows("calibration")) == 4


def test_if_all_rows_are_bad_that_is_an_error(tmp_path: Path) -> None:
    """With the first of them."""
    data = data_of(tmp_path, [{"messages": 1}, {"messages": 2}], bad_rows="leave_out")
    with pytest.raises(ValueError, match="none of 2 rows of .* can be used; the first: row 1 of"):
        data.attach(tokenizer(PLAIN), 512).setup("fit")


def test_refused_rows_say_how_to_leave_them_out(tmp_path: Path) -> None:
    """And the setting has two values."""
    with pytest.raises(ValueError, match="row 8 .*bad_rows=leave_out"):
        data_of(tmp_path, rows(content=42)).attach(tokenizer(PLAIN), 512).setup("fit")
    with pytest.raises(ValueError, match="bad_rows='skip' is not allowed; .*'refuse', 'leave_out'"):
        TextData(bad_rows="skip")  # type: ignore[arg-type]


# --- dates ---


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "07 Nov 2026"),
        ("{{ strftime_now('%-d. %B, %A (100%%) %H:%M') }}", "7. November, Saturday (100%) 00:00"),
        ("{% set now = strftime_now %}{{ now('%Y') | int + 1 }}", "2027"),
        ("{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }}{% endif %}", "2026-11-07"),
        ("{% macro m() %}{{ strftime_now('%y') }}{% endmacro %}{{ m() }}", "26"),
    ],
)
def test_templates_are_told_the_day_that_is_asked_for(asks: str, told: str) -> None:
    """However they ask for it."""
    messages = chat(1)["messages"]
    text, answers = templated_text(messages, tokenizer(f"{asks} {PLAIN}"), False, DAY)
    assert text == f"{told} <user> count 1\n<assistant> 1 1 1\n"
    assert [text[start:end] for start, end in answers] == ["1 1 1\n"]


@pytest.mark.parametrize(
    "first", ["", "\n", "\n\n", "  ", "{% if true %}\n{% endif %}", "{# a #}\n"]
)
def test_nothing_else_of_a_text_depends_on_the_date(first: str) -> None:
    """White space at the beginning of a template is a matter of its lines."""
    messages = chat(1)["messages"]
    dated = tokenizer(first + PLAIN + "{% if false %}{{ strftime_now('%Y') }}{% endif %}")
    expected, _ = templated_text(messages, tokenizer(first + PLAIN), True, DAY)
    assert templated_text(messages, dated, True, DAY)[0] == expected
