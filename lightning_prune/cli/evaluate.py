"""`lightning-prune evaluate A [B …]`: perplexity, tasks and generations of saved models."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lightning_prune.callbacks import Evaluate
from lightning_prune.checkpoints.load import check_stored
from lightning_prune.cli.arguments import Parser, add_models, folder, writable
from lightning_prune.data.judged import JudgedText
from lightning_prune.evaluation import SEVEN, Evaluation
from lightning_prune.models import CausalLM
from lightning_prune.report.evaluation import print_evaluations, write_evaluations

__all__ = ["NAME", "known_models", "loaded", "run", "say_files"]

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
        begin_token=None if given.begin_token is None else given.begin_token == "true",
        date=given.date,
    )
    evaluate.check()
    modules = known_models(given)
    texts = _texts(evaluate, modules)
    writable(given.out)
    found: dict[str, Evaluation] = {}
    for name, module in loaded(modules):
        found[name] = evaluate.of(module.base, module.tokenizer, given.device, texts.pop(name))
    print_evaluations(found)
    if given.out:
        settings = evaluate.settings | {"device": str(given.device), "dtype": given.dtype}
        say_files(write_evaluations(found, given.out, settings, "evaluation"))


def known_models(given: argparse.Namespace) -> dict[str, CausalLM]:
    """The models by what tables call them; none is loaded yet.

    That is the last part of a path, where it tells a model from the others.

    Raises:
        FileNotFoundError: there is no such model, or files of it are missing.
        ValueError: a model is named twice, is of no known family, or its files are damaged.
    """
    modules: dict[str, CausalLM] = {}
    at: dict[str, str] = {}
    names = [Path(os.path.abspath(path)).name for path in given.models]
    for path, name in zip(given.models, names, strict=True):
        module = CausalLM(path, dtype=given.dtype, trust_remote_code=given.trust_remote_code)
        assert module.source is not None
        location = module.source.location
        if module.source.is_folder:
            location = str(Path(location).resolve())
        if location in at:
            raise ValueError(
                f"{path!r} is the same model as {at[location]!r}; give each model once"
            )
        at[location] = path
        config = module.source.config()
        if module.source.is_folder:
            check_stored(Path(location), False, config, given.trust_remote_code)
        modules[name if names.count(name) == 1 else path] = module
    return modules


def loaded(modules: Mapping[str, CausalLM]) -> Iterator[tuple[str, CausalLM]]:
    """The models, one after the other: each is let go before the next one is loaded."""
    for name, module in modules.items():
        module.load()
        yield name, module
        module.model = None


def _texts(evaluate: Evaluate, modules: Mapping[str, CausalLM]) -> dict[str, list[JudgedText]]:
    """The texts in tokens of each model: everything that may be refused before one is judged."""
    documents, found = evaluate.read(), {}
    for name, module in modules.items():
        try:
            longest = module.max_position_embeddings
            found[name] = evaluate.cut(module.tokenizer, longest, documents, module.vocabulary)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found


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
        "--begin_token",
        choices=("true", "false"),
        help="whether windows and questions begin with the begin token; default: as the tokenizer "
        "begins a text",
    )
    parser.add_argument("--date", help="the day that chat templates are told; default: today")
    parser.add_argument(
        "--out", type=folder, metavar="FOLDER", help="write evaluation.json and evaluation.md there"
    )
    return parser
