"""What a model is judged by: texts, tasks and what it says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from inspect import signature
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from lightning_prune.callbacks.observers.measuring import text_perplexity
from lightning_prune.checks import known_arguments
from lightning_prune.data.documents import Documents
from lightning_prune.data.judged import JudgedText, check_lengths, judged_documents, window_length
from lightning_prune.data.rendering import Rendering, day_of
from lightning_prune.evaluation import (
    Evaluation,
    check_prompt,
    check_tasks,
    continuation,
    zero_shot,
)

__all__ = ["Judge"]


class Judge:
    """Perplexity on several texts and window lengths, tasks of lm-eval, and sample generations.

    Attributes:
        rendering: how texts become tokens.

    Args:
        texts: as `TextData` takes its source: "wikitext2", "wikitext103", "ptb", "c4", "builtin",
            a file, a folder. A file, and whatever else has no splits, is read whole; but of the
            text that a Trainer's `TextData` trains or calibrates with, the share for `split`.
        lengths: tokens in a window; perplexity is measured for each. None: what the model can take,
            2048 at most.
        split: of the texts, "test" or "validation".
        windows: at most so many windows of each text; None: all.
        tasks: names of tasks of lm-eval; `lightning_prune.evaluation.SEVEN` are those of papers.
        few_shot: solved examples in front of each question; None: as each task says.
        limit: at most so many questions of each task.
        task_folder: a folder with task files of your own; Python code that they name is run.
        prompts: texts that the model goes on from, the likeliest token each time.
        new_tokens: how many tokens it generates.
        batch_size: windows, or questions, at once.
        text_column: the column or key that holds the text.
        begin_token: what windows of text, and questions, begin with, as `TextData` takes it; None:
            as in the Trainer's `TextData`, else as the tokenizer begins a text.
        date: the day, such as 2026-11-27, that chat templates are told is today; None likewise.

    Raises:
        ValueError: nothing is asked for, or an argument is out of range.
    """

    @known_arguments
    def __init__(
        self,
        texts: Sequence[str] = (),
        lengths: Sequence[int] | None = None,
        split: Literal["test", "validation"] = "test",
        windows: int | None = None,
        tasks: Sequence[str] = (),
        few_shot: int | None = 0,
        limit: int | None = None,
        task_folder: str | None = None,
        prompts: Sequence[str] = (),
        new_tokens: int = 32,
        batch_size: int = 8,
        text_column: str = "text",
        begin_token: bool | None = None,
        date: str | None = None,
    ) -> None:
        self.texts, self.lengths, self.split, self.windows = texts, lengths, split, windows
        self.tasks, self.few_shot, self.limit = tasks, few_shot, limit
        self.task_folder = task_folder
        self.prompts, self.new_tokens = prompts, new_tokens
        self.batch_size, self.text_column = batch_size, text_column
        self.begin_token, self.date = begin_token, date
        self.rendering = Rendering(begin_token, day=day_of(date))
        if not (texts or tasks or prompts):
            raise ValueError("nothing to evaluate: give texts, tasks or prompts")
        check_lengths(lengths)
        for name in ("windows", "limit", "new_tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; 1 at least")
        if few_shot is not None and few_shot < 0:
            raise ValueError(f"few_shot={few_shot}; 0 at least, or None for what each task says")

    def check(self) -> None:
        """Refuse unknown tasks before anything is measured.

        Raises:
            ValueError: a task is unknown, or lm-eval is not installed.
        """
        if self.tasks:
            check_tasks(self.tasks, self.task_folder)

    def read(self, apart: Collection[str] = ()) -> dict[str, Documents]:
        """Read all texts.

        Args:
            apart: the sources that the model is made with.

        Raises:
            FileNotFoundError: there is no such text.
            ValueError: a text is empty, or cannot be understood.
        """
        how = self.split, self.text_column, apart, self.rendering.bad_rows
        return {text: judged_documents(text, *how) for text in self.texts}

    def cut(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        longest: int,
        documents: Mapping[str, Documents],
        vocabulary: int | None = None,
    ) -> list[JudgedText]:
        """Tokenise each text for each length, and check the prompts, before a model is judged.

        Args:
            tokenizer: of the model that will be judged.
            longest: how many tokens that model can take.
            documents: of `read`.
            vocabulary: how many tokens that model has; None: that is not known.

        Raises:
            ValueError: there is no tokenizer, or another model's, a text is too short, or a window
                or a prompt is longer than the model can take.
        """
        if tokenizer is None:
            raise ValueError(
                "the model has no tokenizer, and texts, tasks and prompts need one; put its "
                "tokenizer.json beside its weights"
            )
        lengths = [window_length(length, longest) for length in self.lengths or (None,)]
        for prompt in self.prompts:
            check_prompt(prompt, tokenizer, self.new_tokens, longest, vocabulary)
        how = self.split, self.windows, self.rendering, vocabulary
        return [
            JudgedText.cut(documents[text], tokenizer, length, text, *how)
            for text in self.texts
            for length in lengths
        ]

    def of(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase | None,
        device: torch.device | str | None = None,
        texts: Sequence[JudgedText] | None = None,
    ) -> Evaluation:
        """Judge one model.

        Args:
            model: a Hugging Face causal LM.
            tokenizer: its tokenizer.
            device: where to run; default: where the model is.
            texts: of `cut`, with this tokenizer; None: they are read now.

        Raises:
            FileNotFoundError: there is no such text.
            ValueError: what `cut` refuses, or a task cannot be run.
        """
        if texts is None:
            config = model.config
            longest, vocabulary = config.max_position_embeddings, config.vocab_size
            texts = self.cut(tokenizer, longest, self.read(), vocabulary)
        assert tokenizer is not None, "cut refuses that"
        device = next(model.parameters()).device if device is None else torch.device(device)
        evaluation = Evaluation([text_perplexity(model, t, self.batch_size, device) for t in texts])
        for prompt in self.prompts:
            answer = continuation(model, tokenizer, prompt, device, self.new_tokens)
            evaluation.answers += [answer] if answer is not None else []
        if self.tasks:
            evaluation.tasks = zero_shot(
                model,
                tokenizer,
                self.tasks,
                device=device,
                batch_size=self.batch_size,
                few_shot=self.few_shot,
                limit=self.limit,
                task_folder=self.task_folder,
                begin_token=self.rendering.begin_token,
            )
        return evaluation

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, as JSON can say it."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}
