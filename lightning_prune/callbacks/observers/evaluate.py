"""Judge a model by texts, tasks and what it says: in `fit`, `validate`, `test`, or by hand."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from peft import PeftModel
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.callbacks.base import methods_of
from lightning_prune.callbacks.observers.base import PruneObserver
from lightning_prune.callbacks.observers.judge import Judge
from lightning_prune.data.judged import JudgedText
from lightning_prune.data.protocols import Windowed, sources_of
from lightning_prune.data.rendering import Rendering
from lightning_prune.data.text_data import SEEN
from lightning_prune.evaluation import Evaluation
from lightning_prune.models import CausalLM, merged_model
from lightning_prune.models.module import PrunableModule
from lightning_prune.plan import Plan
from lightning_prune.report.evaluation import evaluation_document
from lightning_prune.report.files import print_document, write
from lightning_prune.report.names import model_name

__all__ = ["Evaluate"]


class Evaluate(Judge, PruneObserver):
    """Perplexity on several texts and window lengths, tasks of lm-eval, and sample generations.

    In `fit` the dense, the pruned and the recovered model are judged, and the run's report shows
    them side by side. In `validate` and `test` the model is judged once, a table is printed, and
    `evaluation.json` and `evaluation.md` are left in the run's folder. Without a Trainer:

    ```python
    evaluation = Evaluate(texts=["wikitext2"], lengths=[2048], tasks=["boolq"]).of(model, tokenizer)
    ```

    Process 0 judges, while the others wait. The arguments are those of `Judge`. What text begins
    with, and the date, are those of the Trainer's `TextData` where none are asked for.
    """

    _texts: list[JudgedText] | None = None

    @cached_property
    def results(self) -> dict[str, Evaluation]:
        """What was found, by stage: "dense", "pruned", "recovered", or "model"."""
        return {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be evaluated before the model is tested."""
        if not isinstance(pl_module, CausalLM):
            raise TypeError(f"Evaluate judges a CausalLM; got {type(pl_module).__name__}")
        if stage != "predict":
            self.before_prune(trainer, pl_module)

    def before_prune(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Refuse what cannot be evaluated, and read the texts, in process 0."""

        def look() -> None:
            rendering = self._rendering_beside(getattr(trainer, "datamodule", None))
            if self._texts is None or rendering != self.rendering:  # a run goes on with its date
                assert isinstance(pl_module, CausalLM)
                self.check()
                self.rendering = rendering
                longest, vocabulary = pl_module.max_position_embeddings, pl_module.vocabulary
                documents = self.read(_made_with(trainer))
                self._texts = self.cut(pl_module.tokenizer, longest, documents, vocabulary)

        distributed.once(look)

    def _rendering_beside(self, data: Any) -> Rendering:
        """How the datamodule makes tokens, but for what was asked for here."""
        if not isinstance(data, Windowed):
            return self.rendering
        theirs = data.rendering
        begin = theirs.begin_token if self.begin_token is None else self.begin_token
        day = theirs.day if self.date is None else self.rendering.day
        return Rendering(begin, day=day, bad_rows=theirs.bad_rows)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the texts go: the next model may have another tokenizer."""
        self._texts = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let the texts go, too."""
        self._texts = None

    def on_prune_start(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Judge the dense model; with several methods, before the first one."""
        if not pl_module.plans:
            self._judge("dense", trainer, pl_module, pl_module.base)

    def on_prune_end(self, trainer: Trainer, pl_module: PrunableModule, plan: Plan) -> None:
        """Judge the pruned model, when the last method is done."""
        if all(method.has_pruned(pl_module) for method in methods_of(trainer)):
            self._judge("pruned", trainer, pl_module, pl_module.base)

    def on_recovery_end(
        self, trainer: Trainer, pl_module: PrunableModule, model: PreTrainedModel | None
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

    def _judge(self, stage: str, trainer: Trainer, pl_module: PrunableModule, model: Any) -> None:
        def judge() -> None:
            device = trainer.strategy.root_device
            self.results[stage] = self.of(model, pl_module.tokenizer, device, self._texts)

        with self.timed(f"judging {stage}"):
            distributed.once(judge)

    def _judge_once(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CausalLM)
        whole = not (pl_module.sharded or isinstance(pl_module.model, PeftModel))
        model = pl_module.base if whole else merged_model(pl_module)
        self._judge("model", trainer, pl_module, model)

        def say() -> None:
            judged = {model_name(pl_module.path or "model"): self.results["model"]}
            document = evaluation_document(judged, self.settings)
            print_document(document)
            write(document, trainer.default_root_dir)

        distributed.once(say)


def _made_with(trainer: Trainer) -> set[str]:
    """The sources of text that a Trainer's model is calibrated and trained with."""
    sources = sources_of(getattr(trainer, "datamodule", None))
    return {source for use, source in sources.items() if use in SEEN}
