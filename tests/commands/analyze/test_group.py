"""`lightning-prune analyze`: which commands there are, and what is said of others."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from lightning_prune.cli import main
from lightning_prune.commands import analyze


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_name_all_are_listed(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each, as the commands of the program."""
    main(["analyze", *arguments])
    said = capsys.readouterr().out
    assert said.startswith("usage: lightning-prune analyze COMMAND ")
    for name, text in analyze.COMMANDS.items():
        assert f"\n  {name:<15} {text}\n" in said
    assert max(map(len, said.splitlines())) <= 80


def test_every_file_is_a_command_of_the_table() -> None:
    """And the function in it has its name."""
    files = [file.stem for file in Path(analyze.__path__[0]).glob("*.py")]
    assert sorted(analyze.COMMANDS) == sorted(set(files) - {"__init__"})
    for name in analyze.COMMANDS:
        module = import_module(f"lightning_prune.commands.analyze.{name}")
        assert callable(getattr(module, name))


@pytest.mark.parametrize("name", analyze.COMMANDS)
def test_each_has_a_help_and_arguments_of_its_own(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each argument is explained; the line of the table is where the help begins."""
    with pytest.raises(SystemExit) as exit:
        main(["analyze", name, "--help"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: lightning-prune analyze {name} ")
    assert analyze.COMMANDS[name] in " ".join(said.split())
    for line in re.findall(r"^  (?:--\w+|\w+) .*\n(?! {20})", said, re.MULTILINE):
        assert re.match(r"  \S+(?: \S+)*  +\S", line), f"no help in {line!r}"
    assert not re.search(r"\b(None|True|False)\b", said), "values are written as in YAML"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["circits", "a"], "analyze has no command 'circits'. Did you mean circuits? Commands: "),
        (["masks", "a"], "analyze has no command 'masks'. Commands: scores, circuits"),
        (["scores", "a", "--ou=x"], "scores has no argument 'ou'. Did you mean out?"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    arguments: list[str], message: str, refused: Callable[..., str]
) -> None:
    """Of a command, and of its arguments."""
    assert message in refused(*arguments)
