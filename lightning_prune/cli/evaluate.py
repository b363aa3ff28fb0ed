"""`lightning-prune evaluate A [B …]`: perplexity, tasks and generations of saved models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lightning_prune.callbacks import Evaluate
from lightning_prune.cli.arguments import Parser, add_models, folder
from lightning_prune.evaluation import SEVEN, Evaluation
from lightning_prune.models import CausalLM
from lightning_prune.report.evaluation import print_evaluations, write_evaluations

__all__ = ["NAME", "loaded", "run", "say_files"]

NAME = "evaluate"


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    given = _parser().parse_args(arguments)
    if given.tasks == []:
        given.tasks = list(SEVEN)
    if not (given.texts or given.tasks or given.prompts):
        raise ValueError(
            "nothing to evaluate: give --texts (wikitext2, ptb, c4, builtin, a file, a folder), "
            "--tasks (names, or none for the seven of pruning papers) or --prompts"
        )
    evaluate = Evaluate(
        texts=given.texts or (),
        lengths=given.lengths,
        tasks=given.tasks or (),
        prompts=given.prompts or (),
        split=given.split,
        windows=given.windows,
        few_shot=given.few_shot,
        limit=given.limit,
        task_folder=given.task_folder,
        new_tokens=given.new_tokens,
        batch_size=given.batch_size,
        text_column=given.text_column,
    )
    evaluate.check()
    found: dict[str, Evaluation] = {}
    for name, module in loaded(given):
        found[name] = evaluate.of(module.base, module.tokenizer, given.device)
    settings = evaluate.settings | {"device": str(given.device), "dtype": given.dtype}
    files = write_evaluations(found, given.out, settings, "evaluation") if given.out else {}
    print_evaluations(found)
    say_files(files)


def loaded(given: argparse.Namespace) -> Iterator[tuple[str, CausalLM]]:
    """The models, one after the other: each is let go before the next one is loaded."""
    modules = [
        CausalLM(path, dtype=given.dtype, trust_remote_code=given.trust_remote_code)
        for path in given.models
    ]
    for module in modules:
        assert module.source is not None
        module.source.config()  # all are there, before the first one is judged
    for module in modules:
        module.load()
        yield _name(str(module.path), given.models), module
        module.model = None


def _name(path: str, paths: Sequence[str]) -> str:
    """What tables call a model: the last part of its path, where that tells it from the others."""
    names = [Path(one).name for one in paths]
    return Path(path).name if names.count(Path(path).name) == 1 else path


def say_files(files: dict[str, str]) -> None:
    """Print what was written, one file a line and never broken."""
    width = max(map(len, files), default=0)
    for name, path in files.items():
        Console().print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"lightning-prune {NAME}",
        description="Judge saved models, side by side: perplexity of texts at several window "
        "lengths, tasks of lm-eval with standard errors, and what they say. The others are "
        "compared with the first.",
    )
    add_models(parser)
    parser.add_argument(
        "--texts",
        nargs="+",
        metavar="TEXT",
        help="wikitext2, wikitext103, ptb, c4, builtin, a file, or a folder, as data.source",
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        metavar="TOKENS",
        help="tokens in a window, one or several",
    )
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--windows", type=int, help="at most so many windows of each text")
    parser.add_argument(
        "--tasks",
        nargs="*",
        metavar="TASK",
        help=f"tasks of lm-eval; without a name these: {' '.join(SEVEN)}",
    )
    parser.add_argument("--few_shot", type=int, default=0, help="solved examples before a question")
    parser.add_argument("--limit", type=int, help="at most so many questions of each task")
    parser.add_argument(
        "--task_folder", metavar="FOLDER", help="task files of your own; code they name is run"
    )
    parser.add_argument("--prompts", nargs="+", metavar="PROMPT", help="texts to go on from")
    parser.add_argument("--new_tokens", type=int, default=32, help="tokens that are generated")
    parser.add_argument("--batch_size", type=int, default=8, help="windows or questions at once")
    parser.add_argument("--text_column", default="text", help="the column that holds the text")
    parser.add_argument(
        "--out", type=folder, metavar="FOLDER", help="write evaluation.json and evaluation.md there"
    )
    return parser
