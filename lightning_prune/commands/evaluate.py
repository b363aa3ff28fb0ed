"""`lightning-prune evaluate A [B …]`: perplexity, tasks and generations of saved models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning_prune.callbacks.observers.judge import Judge
from lightning_prune.commands.arguments import Kept, usable_device, writable_folder
from lightning_prune.commands.models import known_models, language_models, loaded
from lightning_prune.commands.quiet import quiet_loading
from lightning_prune.commands.sparse import known_variants, sparse_or_dense
from lightning_prune.data.judged import JudgedText
from lightning_prune.evaluation import SEVEN, Evaluation
from lightning_prune.models import CausalLM
from lightning_prune.models.loading import DType
from lightning_prune.report.evaluation import evaluation_document
from lightning_prune.report.files import show
from lightning_prune.report.kept.runs import evaluation_runs

__all__ = ["BARE", "evaluate"]

BARE = {"tasks": SEVEN}
"""`--tasks` without a name asks for the seven of pruning papers."""


@quiet_loading()
def evaluate(
    models: list[str],
    asked: Judge,
    kept: Kept,
    *,
    thresholds: list[str] | None = None,
    dtype: DType = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    out: str | Path | None = None,
) -> None:
    """Judge saved models, side by side; the others are compared with the first.

    Perplexity of texts at several window lengths, tasks of lm-eval with standard errors, and what
    the models say.

    Args:
        models: folders, names on the hub, or "quickstart".
        asked: what they are judged by.
        kept: where the results are added.
        thresholds: files of `analyze activations`, or "saved" for activation_thresholds.json in a
            model's folder: each model is judged as it is, and with its activations cut by each.
        dtype: of the weights.
        device: where to run; None: a GPU if there is one.
        trust_remote_code: run Python code that comes with a model.
        out: a folder for evaluation.json and evaluation.md.

    Raises:
        FileNotFoundError: there is no such model or text.
        ValueError: a model, text or thresholds cannot be used; before the first model is loaded.
    """
    where = usable_device(device)
    asked.check()
    modules = language_models(known_models(models, dtype, trust_remote_code))
    variants = known_variants(modules, thresholds)
    texts = _texts(asked, modules)
    folder = writable_folder(out)
    evaluations: dict[str, Evaluation] = {}
    for name, module in loaded(modules):
        cut = texts.pop(name)
        for label, limits in variants[name].items():
            with sparse_or_dense(module.base, limits) as sparse:
                evaluation = asked.of(module.base, module.tokenizer, where, cut)
                evaluation.unread = None if sparse is None else sparse.unread
            evaluations[label] = evaluation
    settings = asked.settings | {"device": str(where), "dtype": dtype}
    if thresholds:
        settings["thresholds"] = thresholds
    show(evaluation_document(evaluations, settings), folder)
    kept.add(evaluation_runs, "evaluate", evaluations, settings)


def _texts(asked: Judge, modules: Mapping[str, CausalLM]) -> dict[str, list[JudgedText]]:
    """The texts in tokens of each model: everything that may be refused before one is judged."""
    documents, texts = asked.read(), {}
    for name, module in modules.items():
        try:
            longest = module.max_position_embeddings
            texts[name] = asked.cut(module.tokenizer, longest, documents, module.vocabulary)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return texts
