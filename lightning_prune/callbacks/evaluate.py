"""Judge a model by texts, tasks and what it says: in `fit`, `validate`, `test`, or by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_prune import distributed
from lightning_prune.callbacks.base import PruneObserver, methods_of
from lightning_prune.data.documents import Documents
from lightning_prune.data.judged import JudgedText, check_lengths, judged_documents, window_length
from lightning_prune.data.rendering import Rendering, day_of
from lightning_prune.data.text_data import SEEN
from lightning_prune.evaluation import (
    Evaluation,
    TextPerplexity,
    check_prompt,
    check_tasks,
    continuation,
    perplexity,
    zero_shot,
)
from lightning_prune.models import CausalLM, merged_model
from lightning_prune.plan import Plan
from lightning_prune.report.evaluation import print_evaluations, write_evaluations

__all__ = ["Evaluate"]


class Evaluate(PruneObserver):
    """Perplexity on several texts and window lengths, tasks of lm-eval, and sample generations.

    In `fit` the dense, the pruned and the recovered model are judged, and the run's report shows
    them side by side. In `validate` and `test` the model is judged once, a table is printed, and
    `evaluation.json` and `evaluation.md` are left in the run's folder. Without a Trainer:

    ```python
    found = Evaluate(texts=["wikitext2"], lengths=[2048], tasks=["boolq"]).of(model, tokenizer)
    ```

    Process 0 judges, while the others wait.

    Attributes:
        results: what was found, by stage: "dense", "pruned", "recovered", or "model".

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
        self.results: dict[str, Evaluation] = {}
        self._texts: list[JudgedText] | None = None
        if not (texts or tasks or prompts):
            raise ValueError("nothing to evaluate: give texts, tasks or prompts")
        if isinstance(texts, str) or isinstance(tasks, str) or isinstance(prompts, str):
            raise ValueError("texts, tasks and prompts are lists of names, not one name")
        if split not in ("test", "validation"):
            raise ValueError(f"split={split!r} is not allowed; allowed: 'test', 'validation'")
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
        found = Evaluation(
            perplexities=[
                TextPerplexity(
                    text=text.source,
                    split=text.part,
                    window=text.length,
                    windows=len(text.windows),
                    perplexity=perplexity(model, text.batches(self.batch_size), device),
                    tokens=text.fingerprint,
                    begin=text.begin,
                )
                for text in texts
            ]
        )
        for prompt in self.prompts:
            said = continuation(model, tokenizer, prompt, device, self.new_tokens)
            found.answers += [said] if said is not None else []
        if self.tasks:
            found.tasks = zero_shot(
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
        return found

    # --- in a Trainer ---

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be evaluated before the model is tested."""
        if not isinstance(pl_module, CausalLM):
            raise TypeError(f"Evaluate judges a CausalLM; got {type(pl_module).__name__}")
        if stage != "predict":
            self.before_prune(trainer, pl_module)

    def before_prune(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """Refuse what cannot be evaluated, and read the texts, in process 0."""

        def look() -> None:
            if self._texts is None:
                self.check()
                self._render_as(getattr(trainer, "datamodule", None))
                longest, vocabulary = pl_module.max_position_embeddings, pl_module.vocabulary
                documents = self.read(_made_with(trainer))
                self._texts = self.cut(pl_module.tokenizer, longest, documents, vocabulary)

        distributed.once(look)

    def _render_as(self, data: Any) -> None:
        """Make tokens as the datamodule does, but for what was asked for here."""
        theirs: Rendering | None = getattr(data, "rendering", None)
        if theirs is not None:
            begin = theirs.begin_token if self.begin_token is None else self.begin_token
            day = theirs.day if self.date is None else self.rendering.day
            self.rendering = Rendering(begin, day=day, bad_rows=theirs.bad_rows)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the texts go: the next model may have another tokenizer."""
        self._texts = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let the texts go, too."""
        self._texts = None

    def on_prune_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """Judge the dense model; with several methods, before the first one."""
        if not pl_module.plans:
            self._judge("dense", trainer, pl_module, pl_module.base)

    def on_prune_end(self, trainer: Trainer, pl_module: CausalLM, plan: Plan) -> None:
        """Judge the pruned model, when the last method is done."""
        if all(method.has_pruned(pl_module) for method in methods_of(trainer)):
            self._judge("pruned", trainer, pl_module, pl_module.base)

    def on_recovery_end(
        self, trainer: Trainer, pl_module: CausalLM, model: PreTrainedModel | None
    ) -> None:
        """Judge the recovered model."""
        self._judge("recovered", trainer, pl_module, model)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge a model that is validated, not trained."""
        if trainer.state.fn == "validate":
            self._judge_once(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the model."""
        self._judge_once(trainer, pl_module)

    def _judge(self, stage: str, trainer: Trainer, pl_module: CausalLM, model: Any) -> None:
        def judge() -> None:
            device = trainer.strategy.root_device
            self.results[stage] = self.of(model, pl_module.tokenizer, device, self._texts)

        distributed.once(judge)

    def _judge_once(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CausalLM)
        whole = not (pl_module.sharded or isinstance(pl_module.model, PeftModel))
        model = pl_module.base if whole else merged_model(pl_module)
        self._judge("model", trainer, pl_module, model)

        def write() -> None:
            found = {Path(pl_module.path or "model").absolute().name: self.results["model"]}
            print_evaluations(found)
            folder = Path(trainer.default_root_dir)
            write_evaluations(found, folder, self.settings, "evaluation")

        distributed.once(write)

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, as JSON can say it."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}


def _made_with(trainer: Trainer) -> set[str]:
    """The sources of text that a Trainer's model is calibrated and trained with."""
    sources = getattr(getattr(trainer, "datamodule", None), "sources", {})
    return {source for use, source in sources.items() if use in SEEN}
