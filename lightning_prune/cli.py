"""The command line: one table of all commands, and errors that fit on one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from lightning_prune.checks import meant
from lightning_prune.commands.errors import end, note_parent
from lightning_prune.commands.quiet import without_kernel_line
from lightning_prune.commands.signals import end_stopped, handled
from lightning_prune.parsing import Refused, import_public_names
from lightning_prune.version import __version__

__all__ = ["COMMANDS", "Command", "main"]

DEBUG = "LIGHTNING_PRUNE_DEBUG"

HELP = """\
usage: lightning-prune COMMAND ...

Prune Hugging Face causal language models, recover them, and save them as
ordinary checkpoints.
{}
`lightning-prune COMMAND --help` lists what a command takes; - in an option's
name is understood as _. Recipes and fragments that come with the package are
found by name: lightning-prune fit --config quickstart.yaml
"""

GROUP_HELP = """\
usage: lightning-prune {name} COMMAND ...

{about}

`lightning-prune {name} COMMAND --help` lists what a command takes.
"""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        help: what it does, in one line.
        run: runs it, given its name and all arguments of the command line.
    """

    help: str
    run: Callable[[str, list[str]], None]


def _configured(name: str, arguments: list[str]) -> None:
    """Run a command that takes a configuration, through LightningCLI."""
    from lightning_prune.commands.configured import run

    import_public_names()
    run(name, COMMANDS[name].help, arguments)


def _plain(name: str, arguments: list[str], group: str = "") -> None:
    """Run a command that is the function of its name in the module of its name."""
    from lightning_prune.commands.parser import call

    words = [*group.split(), name]
    module = import_module(".".join(["lightning_prune.commands", *words]))
    arguments.remove(name)
    call(" ".join(words), getattr(module, name), arguments, getattr(module, "BARE", {}))


def _group(name: str, arguments: list[str]) -> None:
    """Run a command of a group, which is a folder of modules; without one, say which there are."""
    commands: dict[str, str] = import_module(f"lightning_prune.commands.{name}").COMMANDS
    arguments.remove(name)
    member = _name(arguments)
    if member is None:
        about = f"{COMMANDS[name].help}\n\n" + "\n".join(_listed(commands))
        print(GROUP_HELP.format(name=name, about=about), end="")
    else:
        _plain(_known(member, commands, f"{name} has "), arguments, group=name)


COMMANDS = {
    "fit": Command("Prune, recover by training, validate and save.", _configured),
    "validate": Command("Measure perplexity on the validation text.", _configured),
    "test": Command("Measure perplexity on the test text.", _configured),
    "predict": Command("Write the loss of every window of the test text to a file.", _configured),
    "prune": Command("Prune, measure and save, without training.", _configured),
    "sweep": Command("Prune by many methods and sparsities; compare them.", _configured),
    "importance": Command("Measure how important each block is.", _configured),
    "search": Command("Try a method's arguments, or shares of its budget.", _configured),
    "circuit": Command("Find what a behaviour is due to; judge the model without it.", _configured),
    "plan_resources": Command("Say what pruning will take, before it is begun.", _configured),
    "evaluate": Command("Judge saved models by texts, tasks and what they say.", _plain),
    "measure": Command("Measure size, speed and memory of saved models.", _plain),
    "score": Command("Judge a scorer of texts by labels that others gave.", _plain),
    "export": Command("Write a saved model for another place, or check it.", _plain),
    "generate": Command("Let a saved model write on from a prompt.", _plain),
    "sparsity": Command("Count the zeros of a saved model.", _plain),
    "compare": Command("Compare size and structure of two saved models.", _plain),
    "analyze": Command("Analyse what runs leave behind: a group of commands.", _group),
}
"""What there is: by name, its line of help and what runs it."""

_KINDS = {
    "with a configuration (--config FILE, or options)": (_configured,),
    "without one": (_plain, _group),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    An error of this package, of Lightning's settings, or of the disk, is one line and exit status
    2; set LIGHTNING_PRUNE_DEBUG=1 for its traceback. SIGTERM is one line, too.

    Args:
        arguments: of the command line; None: those of this process.
    """
    without_kernel_line()
    note_parent()
    arguments = _underscored(sys.argv[1:] if arguments is None else arguments)
    try:
        with handled():
            _run(arguments)
    except SystemExit as error:
        end_stopped(error, _name(arguments))
    except KeyboardInterrupt:
        print("lightning-prune: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except (Exception, Refused) as error:
        if os.environ.get(DEBUG):
            raise
        end(error)


def _run(arguments: list[str]) -> None:
    name = _name(arguments)
    if name is not None:
        COMMANDS[_known(name, COMMANDS)].run(name, arguments)
    elif "--version" in arguments:
        print(f"lightning-prune {__version__}")
    else:
        print(_help(), end="")


def _name(arguments: Sequence[str]) -> str | None:
    """The name of the command: what stands first, but for configurations for several commands."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            return argument
        if argument in ("-c", "--config"):
            next(rest, None)
    return None


def _known(name: str, commands: Mapping[str, object], has: str = "") -> str:
    """The name of a command that there is."""
    if name not in commands:
        guess = meant(name, list(commands))
        raise ValueError(f"{has}no command {name!r}.{guess} Commands: {', '.join(commands)}.")
    return name


def _underscored(arguments: Sequence[str]) -> list[str]:
    """The arguments with `_` for `-` in the names of options."""
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            argument = "--" + name[2:].replace("-", "_") + equals + value
        result.append(argument)
    return result


def _help() -> str:
    lines = []
    for title, runs in _KINDS.items():
        of_kind = {name: c.help for name, c in COMMANDS.items() if c.run in runs}
        lines += [f"\n{title}:", *_listed(of_kind)]
    return HELP.format("\n".join([*lines, ""]))


def _listed(commands: Mapping[str, str]) -> list[str]:
    return [f"  {name:<15} {text}" for name, text in commands.items()]


if __name__ == "__main__":
    main()
