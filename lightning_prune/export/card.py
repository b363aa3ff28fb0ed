"""The README.md of a saved model: what was pruned, and how to load it; only what is known.

The metadata at its top is the hub's (https://huggingface.co/docs/hub/model-cards), written by
`huggingface_hub`. No licence is named: it is the base model's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.head import has_own_head
from lightning_prune.checkpoints.save import is_uneven
from lightning_prune.evaluation import Evaluation
from lightning_prune.modeling.registry import auto_class
from lightning_prune.plan import Plan
from lightning_prune.report.evaluation import perplexity_table, task_table, zeros_note
from lightning_prune.report.measures import ACCURACY, PERPLEXITY
from lightning_prune.report.names import unit_names, without_places
from lightning_prune.report.report import Report
from lightning_prune.report.tables import as_markdown
from lightning_prune.tokens import begun
from lightning_prune.version import __version__

__all__ = ["model_card"]

KINDS = {
    "AutoModelForCausalLM": ("text-generation", "causal language model"),
    "AutoModelForImageClassification": ("image-classification", "image classifier"),
}
"""By transformers' class that loads a model: the hub's name of what it is for, and what it is."""


def model_card(
    model: nn.Module, plan: Plan | None, report: Report | None, dtype: torch.dtype
) -> str:
    """A model card for the Hugging Face Hub.

    Args:
        model: the model that is saved.
        plan: what was decided, if known.
        report: what was measured, if anything was.
        dtype: of the weights that are saved.
    """
    uneven = is_uneven(model)
    auto = auto_class(model.config.model_type).__name__  # type: ignore[union-attr, arg-type]
    pipeline, kind = KINDS.get(auto, (None, "model"))
    base = _base_model(model, plan)
    pruned = "Pruned" if plan is not None or uneven else "Trained"
    evaluations = _evaluations(report)
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        base_model=base if base and "/" in base else None,
        tags=[*(["pruned"] if pruned == "Pruned" else []), "lightning_prune"],
        model_name=f"{base or 'model'}, {pruned.lower()}",
        eval_results=list(_results(evaluations)) or None,
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {pruned} model",
        f"A {pruned.lower()} version of `{base}`." if base else f"A {pruned.lower()} {kind}.",
    ]
    if has_own_head(model):
        parts.append(
            "Its output layer has weights of its own, which are not those of the embeddings "
            "(`tie_word_embeddings` is false)."
        )
    if plan is not None:
        parts += ["## What was pruned", _decisions(plan, unit_names(Anatomy(model).blocks))]
    if report is not None and report.stages:
        parts += ["## What was measured", _measured(report, dtype)]
        tables = (perplexity_table(evaluations), task_table(evaluations))
        parts += [f"### {table.title}\n\n{as_markdown(table)}" for table in tables if table]
    parts += ["## Blocks", _blocks(model)] if uneven else []
    parts += ["## How to load it", _loading(auto, uneven)]
    parts.append(f"Made with lightning_prune {__version__}. The licence is that of the base model.")
    return "\n\n".join(parts) + "\n"


def _base_model(model: nn.Module, plan: Plan | None) -> str | None:
    """The name of the model that was pruned; paths on a disk are not for a card."""
    name = plan.steps[0].get("model") if plan is not None else None
    return _public(str(name or getattr(model.config, "_name_or_path", "")))


def _public(name: str) -> str | None:
    """A name, if it is one that others know too."""
    is_path = name.startswith(".") or Path(name).exists()
    return name if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not is_path else None


def _text_name(name: str) -> str:
    return "a local text" if Path(name).suffix else _public(name) or "a local text"


def _evaluations(report: Report | None) -> dict[str, Evaluation]:
    """What was found, by stage; texts that lie on a disk without their path."""
    evaluations = report.evaluations if report is not None else {}
    return {
        stage: replace(
            evaluation,
            perplexities=[
                replace(figure, text=_text_name(figure.text)) for figure in evaluation.perplexities
            ],
        )
        for stage, evaluation in evaluations.items()
    }


def _results(evaluations: dict[str, Evaluation]) -> Iterator[EvalResult]:
    """The last stage's figures, which are those of the saved model, as the hub lists them."""
    last = next(reversed(evaluations.values()), Evaluation())
    for figure in last.perplexities:
        if math.isfinite(figure.perplexity):
            yield EvalResult(
                task_type="text-generation",
                dataset_type=figure.text,
                dataset_name=figure.text,
                dataset_split=figure.split,
                metric_type="perplexity",
                metric_name=(
                    f"perplexity ({figure.windows} windows of {figure.length} tokens"
                    f"{begun(figure.begin)})"
                ),
                metric_value=round(figure.perplexity, 4),
            )
    for task in last.tasks:
        if math.isfinite(task.value):
            facts = f"{task.few_shot}-shot, {task.examples} examples"
            facts += "" if task.stderr is None else f", standard error {task.stderr:.4f}"
            yield EvalResult(
                task_type="text-generation",
                dataset_type=task.task,
                dataset_name=task.task,
                metric_type=task.metric,
                metric_name=f"{task.metric} ({facts})",
                metric_value=round(task.value, 4),
            )


def _decisions(plan: Plan, names: Mapping[str, str]) -> str:
    lines = [f"- Method: {_call(step)}" for step in plan.steps if "method" in step]
    if plan.mask_names:
        lines.append(
            f"- {plan.sparsity():.2%} of the weights in {len(plan.mask_names)} matrices are zero"
        )
    for kind in plan.kinds:
        kept = plan.blocks(kind).values()
        removed, total = sum(k.removed for k in kept), sum(k.total for k in kept)
        where = "" if kind == "block" else f" in {len(kept)} blocks"
        lines.append(f"- {removed} of {total} {names.get(kind, kind)}{where} are removed")
    return "\n".join([*lines, "", "`plan.json` and `plan.safetensors` hold every decision."])


def _call(step: dict[str, Any]) -> str:
    """The method with what it was told, places on a disk left out."""
    if "call" in step:
        return f"`{without_places(step['call'])}`"
    arguments = {k: v for k, v in step.get("arguments", {}).items() if k != "plan"}
    return f"`{step['method']}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})`"


def _measured(report: Report, dtype: torch.dtype) -> str:
    """Every stage of the run that led here, and the share that went since the first."""
    classifies = report.settings.get("unit") == "images"
    measure = ACCURACY if classifies else PERPLEXITY
    rows = [f"| | {measure.name} | parameters | of which not zero |", "|---|---|---|---|"]
    for name, stage in report.stages.items():
        value = measure.of(stage)
        said = measure.text(value) if classifies or value is None else f"{value:.4g}"
        rows.append(f"| {name} | {said} | {stage.parameters:,} | {stage.nonzero:,} |")
    first, *_, last = [*report.stages.values()] * 2
    gone = 1 - last.nonzero / max(first.nonzero, 1)
    lines = [*rows, "", f"{gone:.1%} of the weights were removed or set to zero."]
    length, count = (report.settings.get(key) for key in ("length", "validation_windows"))
    if length:
        begin = begun(report.settings.get("begin"))
        lines.append(f"Perplexity is over {count} validation windows of {length} tokens{begin}.")
    elif classifies and count:
        lines.append(f"Accuracy is over {count:,} validation images.")
    saved = str(dtype).removeprefix("torch.")
    if (measured := report.settings.get("dtype", saved)) != saved:
        lines.append(f"It was measured in {measured}, and these weights are {saved}.")
    if last.parameters >= first.parameters:
        note = zeros_note({"this model": 1 - last.nonzero / max(last.parameters, 1)})
        lines += [note] if note else []
    return "\n".join(lines)


def _blocks(model: nn.Module) -> str:
    blocks = Anatomy(model).blocks
    if all(block.heads == block.kv_heads for block in blocks):
        rows = ["| block | heads | MLP width |", "|---|---|---|"]
        return "\n".join([*rows, *(f"| {b.index} | {b.heads} | {b.width} |" for b in blocks)])
    rows = ["| block | query heads | key/value heads | MLP width |", "|---|---|---|---|"]
    for block in blocks:
        rows.append(f"| {block.index} | {block.heads} | {block.kv_heads} | {block.width} |")
    return "\n".join(rows)


def _loading(auto: str, uneven: bool) -> str:
    argument = ", trust_remote_code=True" if uneven else ""
    code = [
        "```python",
        f"from transformers import {auto}",
        "",
        f'model = {auto}.from_pretrained("path/to/this/folder"{argument})',
        "```",
    ]
    if uneven:
        code += [
            "",
            "The stock class takes no such counts of heads and neurons: its blocks differ, or its "
            "heads do not divide the hidden size. So it brings its model code, "
            "`modeling_pruned.py`. With "
            "`lightning_prune` installed, `lightning_prune.load(folder)` does without that code.",
        ]
    return "\n".join(code)
