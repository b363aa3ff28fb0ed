"""The command line: one table of commands, one spelling, one line for a mistake, a fast start."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_prune import cli
from lightning_prune.cli import COMMANDS, main
from lightning_prune.version import __version__
from tests.fresh import Fresh

PLAIN = [name for name, command in COMMANDS.items() if command.run is cli._plain]
CONFIGURED = [name for name, command in COMMANDS.items() if command.run is cli._configured]


def test_help_has_every_command_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What the program is, and what each command does."""
    main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: lightning-prune ")
    assert "Prune Hugging Face causal language models" in said
    assert len(COMMANDS) == 18
    for name, command in COMMANDS.items():
        assert f"\n  {name:<15} {command.help}\n" in said
    assert max(map(len, said.splitlines())) <= 80
    main([])
    assert capsys.readouterr().out == said


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"lightning-prune {__version__}\n"


@pytest.mark.parametrize("name", PLAIN)
def test_a_command_without_configuration_has_a_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its docstring: what it does, and what each argument means."""
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: lightning-prune {name} ")
    for line in re.findall(r"^  (?:--\w+|\w+) .*\n(?! {20})", said, re.MULTILINE):
        assert re.match(r"  \S+(?: \S+)*  +\S", line), f"no help in {line!r}"
    assert not re.search(r"\b(None|True|False)\b", said), "values are written as in YAML"


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_command_with_a_configuration_lists_all_arguments(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the Trainer, of CausalLM and of TextData; and its own."""
    own = {
        "fit": ["--ckpt_path"],
        "sweep": ["--methods", "--sparsities"],
        "importance": ["--measure", "--part {block,attention,mlp}", "--windows"],
        "search": ["--vary", "--trials", "--held_out"],
    }
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert COMMANDS[name].help in " ".join(said.split())
    usual = ["--trainer.max_steps", "--model.path", "--model.adapter", "--data.length"]
    for option in [*usual, *own.get(name, [])]:
        assert option in said
    assert not re.search(r"\b(None|True|False)\b", said), "values are written as in YAML"
    assert "what the perplexity rises by" in " ".join(said.split()) or name != "importance"


@pytest.mark.parametrize("options", [("--new_tokens", "--device"), ("--new-tokens", "--device")])
def test_a_hyphen_in_an_option_is_an_underscore(
    options: tuple[str, str], model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the name alone: values are left as they are."""
    tokens, device = options
    main(["generate", str(model_folder), "--prompt=a--b-c", f"{tokens}=2", device, "cpu"])
    assert capsys.readouterr().out.startswith("a--b-c")


def test_a_hyphen_is_an_underscore_for_lightning_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Also inside a dotted name."""
    with pytest.raises(SystemExit) as exit:
        main(["fit", "--model.path=quick-start", "--trainer.max-steps", "7", "--print-config"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert "max_steps: 7" in said
    assert "path: quick-start" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fitt"], "no command 'fitt'. Did you mean fit? Commands: fit, validate, "),
        (["evalute", "a"], "no command 'evalute'. Did you mean evaluate?"),
        (["--config", "quickstart", "prunne"], "no command 'prunne'. Did you mean prune?"),
        (["nothing.yaml"], "no command 'nothing.yaml'. Commands: fit"),
        (
            ["export", "a", "--verify", "no"],
            "export has no argument 'verify'. Did you mean no_verify?",
        ),
        (["sparsity", "a", "--patern", "2:4"], "sparsity has no argument 'patern'. Did you mean p"),
        (["compare", "a", "b", "c"], "unrecognized arguments: c"),
        (["measure", "a", "--lengths", "many"], "lengths=many is not allowed. Allowed: a whole n"),
        (["generate", "a"], "the following arguments are required: prompt"),
        (["evaluate", "a", "--split", "tset"], "split=tset is not allowed. Did you mean test?"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the nearest right word, and what is allowed."""
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lightning-prune: error: {message}"), said
    assert said.count("\n") == 1


def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is pressed."""

    def press(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_prune.commands.parser.call", press)
    with pytest.raises(SystemExit) as exit:
        main(["sparsity", "a"])
    assert exit.value.code == 130
    assert capsys.readouterr().err == "lightning-prune: interrupted\n"


def test_an_error_that_nobody_expected_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is any, where one looks for it."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lightning_prune.commands.parser.call", fail)
    with pytest.raises(ZeroDivisionError):
        main(["sparsity", "a"])
    monkeypatch.undo()
    monkeypatch.setenv("LIGHTNING_PRUNE_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="no model at 'nothing'"):
        main(["sparsity", "nothing"])


def test_a_kernel_that_is_not_there_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    """bitsandbytes works without, and a user can do nothing about it; its other warnings stay."""
    main(["--version"])
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "none")
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_cheap_commands_start_without_lightning(fresh: Fresh, tmp_path: Path) -> None:
    """Nor adapters; and `python -m lightning_prune` is the command line."""
    code = (
        "import sys, runpy\n"
        "one = 'quickstart'\n"
        "for arguments in (['--help'], ['sparsity', one], ['compare', one, one]):\n"
        "    sys.argv = ['lightning-prune', *arguments]\n"
        "    runpy.run_module('lightning_prune', run_name='__main__')\n"
        "    slow = {'lightning', 'pytorch_lightning', 'peft', 'bitsandbytes', 'datasets'}\n"
        "    assert not slow & set(sys.modules), (arguments, slow & set(sys.modules))\n"
    )
    done = fresh.run(code, after="lightning_prune", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: lightning-prune" in done.stdout
    assert "zeros by block and kind of matrix" in done.stdout
    assert done.stderr == ""
