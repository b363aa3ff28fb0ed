"""From a signature to a command line: what is a position, an option, a list, a flag, a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from lightning_prune import Pattern
from lightning_prune.commands.parser import call
from lightning_prune.evaluation.scorers.base import Scorer
from lightning_prune.parsing import Refused

seen: list[dict[str, Any]] = []


class Judge:
    """Judges.

    Args:
        lengths: of windows.
        tasks: names.
    """

    def __init__(self, lengths: Sequence[int] | None = None, tasks: Sequence[str] = ()) -> None:
        self.lengths, self.tasks = lengths, tasks


def command(
    models: list[str],
    judge: Judge,
    *,
    to: Literal["here", "there"],
    name: str = "x",
    number: float | None = None,
    loud: bool = False,
    verify: bool = True,
) -> None:
    """Do something.

    With models.

    Args:
        models: folders.
        judge: a judge.
        to: where.
        name: of it.
        number: how many.
        loud: be loud.
        verify: compare them.
    """
    seen.append({**locals(), "judge": vars(judge)})


def called(*arguments: str) -> dict[str, Any]:
    call("do", command, arguments, {"tasks": ("a", "b")})
    return seen.pop()


def test_defaults_are_those_of_the_signature() -> None:
    """Also those of the class that stands for its arguments."""
    assert called("m", "--to=here") == {
        "models": ["m"],
        "judge": {"lengths": None, "tasks": ()},
        "to": "here",
        "name": "x",
        "number": None,
        "loud": False,
        "verify": True,
    }


def test_values_have_the_types_of_the_signature() -> None:
    """Lists take several values, texts stay as they are, truth is a flag."""
    given = called(
        *("m", "n", "--to", "there", "--lengths", "1", "2", "--tasks", "t", "--name", "1.50"),
        *("--number", "3", "--loud", "--no_verify"),
    )
    assert given["models"] == ["m", "n"]
    assert given["judge"] == {"lengths": [1, 2], "tasks": ["t"]}
    assert (given["name"], given["number"]) == ("1.50", 3.0)
    assert (given["loud"], given["verify"]) == (True, False)
    for text in ("null", "a: b", "[1]", "", "- x", "#"):
        assert called("m", "--to=here", f"--name={text}")["name"] == text


def test_a_list_without_a_value_may_mean_something() -> None:
    """Where the command says what; elsewhere it is a mistake."""
    assert called("m", "--to=here", "--tasks")["judge"]["tasks"] == ("a", "b")
    with pytest.raises(Refused, match="--lengths: expected at least one argument"):
        called("m", "--to=here", "--lengths")


def test_a_place_may_be_left_empty() -> None:
    """Of a parameter of the function that has a default; one of a class is an option."""

    def ask(file: str, judge: Judge, sql: str = "SELECT 1") -> None:
        seen.append({"file": file, "sql": sql, "lengths": judge.lengths})

    call("ask", ask, ["f"], {})
    call("ask", ask, ["f", "SELECT 2", "--lengths", "3"], {})
    assert [(s["sql"], s["lengths"]) for s in seen] == [("SELECT 1", None), ("SELECT 2", [3])]
    seen.clear()


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the function, and of the class."""
    with pytest.raises(SystemExit):
        called("--help")
    said = capsys.readouterr().out
    assert "usage: lightning-prune do " in said
    assert "Do something. With models." in " ".join(said.split())
    for line in ("--to {here,there}", "--name NAME           of it.", "be loud.", "of windows."):
        assert line in said
    assert "--no_verify           do not compare them." in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: models, to"),
        (["m", "--to=her"], "to=her is not allowed. Did you mean here[?] Allowed: here, there"),
        (["m", "--to=here", "--number=many"], "number=many is not allowed. Allowed: a number"),
        (["m", "--to=here", "--name=a", "--lenghts=1"], "do has no argument 'lenghts'. Did you me"),
        (["m", "--to=here", "--lengths", "1.5"], "lengths=1.5 is not allowed. Allowed: a whole"),
    ],
)
def test_a_mistake_says_what_is_allowed(arguments: list[str], message: str) -> None:
    with pytest.raises(Refused, match=message):
        called(*arguments)


@pytest.mark.parametrize("required", [True, False])
def test_an_abstract_class_stands_for_an_object_of_a_class_that_is_named(required: bool) -> None:
    """With its arguments; what that class refuses is the error."""

    def one(*, scorer: Scorer) -> None:
        seen.append({"scorer": scorer})

    def perhaps(*, scorer: Scorer | None = None) -> None:
        seen.append({"scorer": scorer})

    function = one if required else perhaps
    call("do", function, ["--scorer", "Pattern", "--scorer.regex", "a"], {})
    made = seen.pop()["scorer"]
    assert isinstance(made, Pattern)
    assert made.regex == "a"
    with pytest.raises(Refused, match="Pattern: regex='.' is not allowed"):
        call("do", function, ["--scorer", "Pattern", "--scorer.regex", "("], {})
    if not required:
        call("do", function, [], {})
        assert seen.pop() == {"scorer": None}
