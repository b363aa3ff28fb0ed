"""Tasks of the Language Model Evaluation Harness (lm-eval), run on a model that is in memory.

Source: https://github.com/EleutherAI/lm-evaluation-harness, as it is installed; nothing of it is
changed. The seven tasks are those of Wanda, SparseGPT and LLM-Pruner; their tables give `acc`, not
`acc_norm`, and other versions of lm-eval word some prompts differently.
"""

from __future__ import annotations

import copy
import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HTTPError
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from lightning_prune.checks import nearest
from lightning_prune.evaluation.results import TaskScore
from lightning_prune.sweep import evaluating, on_device
from lightning_prune.tokens import begin_tokens, check_known, known_pad_token

__all__ = ["SEVEN", "check_tasks", "zero_shot"]

SEVEN = (
    "boolq",
    "rte",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
)
"""The tasks that pruning papers report."""

RESAMPLES = 1000
"""For the standard error of metrics that are not means."""


def zero_shot(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str] = SEVEN,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 8,
    few_shot: int | None = 0,
    limit: int | None = None,
    task_folder: str | Path | None = None,
    begin_token: bool | None = None,
) -> list[TaskScore]:
    """Score a model on tasks of lm-eval, every metric with its standard error.

    The whole model is on the device meanwhile.

    Args:
        model: a Hugging Face causal LM.
        tokenizer: its tokenizer.
        tasks: names of tasks or groups.
        device: where to run; default: where the model is.
        batch_size: questions at once.
        few_shot: solved examples in front of each question; None: as each task says.
        limit: at most so many questions of each task; the figure is a sample's then.
        task_folder: a folder with task files (YAML) of your own, as `lm-eval --include_path` takes
            it. Task files may name Python code beside them, which is run.
        begin_token: what every question begins with: None: as the tokenizer begins a text; True:
            its begin token, also if it puts none there; False: none.

    Raises:
        ValueError: lm-eval is not installed, a task is unknown, its data cannot be had, or it has
            fewer solved examples than few_shot; or the tokenizer is another model's.
    """
    rows = model.get_input_embeddings().num_embeddings
    check_known(torch.tensor(tokenizer.vocab_size - 1), rows, tokenizer, "vocabulary")
    begins = bool(begin_tokens(tokenizer, begin_token))
    tokenizer = _for_tasks(tokenizer, begins, rows)
    manager = check_tasks(tasks, task_folder)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    device = next(model.parameters()).device if device is None else torch.device(device)
    with evaluating(model), on_device([model], device), _quiet(), _without_git():
        results = _said_plainly(
            tasks,
            few_shot,
            lambda: simple_evaluate(
                HFLM(
                    pretrained=model,
                    tokenizer=tokenizer,
                    batch_size=batch_size,
                    add_bos_token=begins,
                ),
                tasks=list(tasks),
                num_fewshot=few_shot,
                limit=limit,
                task_manager=manager,
                log_samples=False,
                bootstrap_iters=RESAMPLES,
            ),
        )
    return list(_scores(results))


def _for_tasks(
    tokenizer: PreTrainedTokenizerBase, begins: bool, rows: int
) -> PreTrainedTokenizerBase:
    """A tokenizer that begins a text if it is to, and pads with a token that the model has."""
    pad = tokenizer.pad_token_id
    lacks_begin = begins and not begin_tokens(tokenizer)
    if not lacks_begin and (pad is None or pad < rows):
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    if pad is not None and pad >= rows:
        tokenizer.pad_token_id = known_pad_token(tokenizer, rows)
    if lacks_begin:
        name, token = str(tokenizer.bos_token), int(tokenizer.bos_token_id)
        begin = processors.TemplateProcessing(f"{name} $A", f"{name} $A $B", [(name, token)])
        backend: Any = tokenizer.backend_tokenizer
        before = [] if backend.post_processor is None else [backend.post_processor]
        backend.post_processor = processors.Sequence([*before, begin])
    return tokenizer


def check_tasks(tasks: Sequence[str], task_folder: str | Path | None = None) -> Any:
    """The task manager of lm-eval that knows these tasks; nothing is loaded yet.

    Raises:
        ValueError: lm-eval is not installed, a task is unknown, or there is no such folder.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the tasks {', '.join(tasks)} need lm-eval ({error}). Install it: "
            "pip install 'lightning-prune[evaluation]'"
        ) from error
    if task_folder is not None and not Path(task_folder).is_dir():
        raise ValueError(f"task_folder={str(task_folder)!r} is no folder")
    with _quiet():
        if task_folder is not None:  # reading the thousands of lm-eval's own takes a while
            manager = TaskManager(include_path=str(task_folder), include_defaults=False)
            if set(tasks) <= set(manager.all_tasks):
                return manager
        manager = TaskManager(include_path=None if task_folder is None else str(task_folder))
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown or not tasks:
        where = f" and {task_folder}" if task_folder is not None else ""
        guesses = [near for task in unknown if (near := nearest(task, manager.all_tasks))]
        guess = f" Did you mean {', '.join(guesses)}?" if guesses else ""
        raise ValueError(
            f"tasks {', '.join(map(repr, unknown)) or '(none)'} are not known to lm-eval{where}. "
            f"Allowed: names that `lm-eval ls tasks` lists, such as {', '.join(SEVEN)}.{guess}"
        )
    return manager


def _said_plainly(
    tasks: Sequence[str], few_shot: int | None, work: Callable[[], Any]
) -> Mapping[str, Any]:
    try:
        return work()
    except torch.cuda.OutOfMemoryError:
        raise
    except (AssertionError, HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if "larger than population" in str(error):
            why = f": few_shot={few_shot} is more than the solved examples that there are"
        elif isinstance(error, (ConnectionError, TimeoutError, HTTPError)):
            why = (
                f" ({reason}). Their questions come from the Hugging Face hub; without a network "
                "give task_folder=, with task files that name local data"
            )
        else:
            why = f" ({reason})"
        raise ValueError(f"the tasks {', '.join(tasks)} cannot be run{why}") from error


def _scores(results: Mapping[str, Any]) -> Iterator[TaskScore]:
    """Every metric; those of lm-eval are named "acc,none", with the filter behind the comma."""
    samples = {task: int(counts["effective"]) for task, counts in results["n-samples"].items()}
    members = {task: _members(task, results) for task in results.get("groups", {})}
    grouped = set().union(*members.values())
    for task, metrics in results["results"].items():
        for name, value in metrics.items():
            metric, comma, kind = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = metrics.get(f"{metric}_stderr,{kind}")
            yield TaskScore(
                task=task,
                metric=metric if kind == "none" else f"{metric} ({kind})",
                value=float(value),
                stderr=float(stderr) if isinstance(stderr, (int, float)) else None,
                examples=sum(samples.get(member, 0) for member in {task, *members.get(task, ())}),
                few_shot=int(results["n-shot"].get(task) or 0),
                higher_is_better=results["higher_is_better"].get(task, {}).get(metric) is not False,
                in_group=task in grouped,
            )


def _members(group: str, results: Mapping[str, Any]) -> set[str]:
    """The tasks of a group, and of the groups in it, and those groups."""
    direct = set(results["group_subtasks"].get(group, ()))
    return direct.union(*(_members(member, results) for member in direct))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out warnings that say what we know: that the model is given, and tasks overwritten.

    Progress bars are for terminals; in a log file they would be hundreds of lines.
    """
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _without_git() -> Iterator[None]:
    """lm-eval asks git for the commit of the folder one stands in, and git complains of most."""
    from lm_eval import evaluator

    asks = evaluator.get_git_commit_hash
    evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = asks
