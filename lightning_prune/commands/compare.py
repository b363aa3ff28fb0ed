"""`lightning-prune compare A B`: the size, structure and perplexity of two saved models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning_prune.analysis.structure import structure
from lightning_prune.commands.arguments import Kept, model_folder, usable_device, writable_folder
from lightning_prune.report.comparison import Comparison, comparison_document
from lightning_prune.report.files import show
from lightning_prune.report.kept.runs import comparison_runs

__all__ = ["compare"]


def compare(
    a: str,
    b: str,
    kept: Kept,
    *,
    text: str | None = None,
    split: Literal["test", "validation"] = "test",
    length: int | None = None,
    batch_size: int = 8,
    text_column: str = "text",
    begin_token: bool | None = None,
    date: str | None = None,
    device: str | None = None,
    out: str | Path | None = None,
) -> None:
    """Compare two saved models, without loading them.

    Parameters, zeros, bytes, the heads and neurons of every block, what only one of them has and,
    with --text, perplexity on the same windows; for that they are loaded.

    Args:
        a: a Hugging Face folder with safetensors, or "quickstart".
        b: another one.
        kept: where the results are added.
        text: also measure perplexity: the name of a text, a file or a folder, as data.source.
        split: of the text.
        length: tokens in a window; None: what the models can take, 2048 at most.
        batch_size: windows in a batch.
        text_column: the column that holds the text.
        begin_token: whether windows begin with the begin token; None: as the tokenizer begins a
            text.
        date: the day that chat templates are told is today; None: today.
        device: where to run; None: a GPU if there is one.
        out: a folder for compare.json, compare.md and compare.svg.

    Raises:
        FileNotFoundError: there is no such model or text.
        ValueError: a folder is damaged, or the models cannot be compared on the text.
    """
    folders = [model_folder(path) for path in (a, b)]
    where = usable_device(device) if text is not None or device is not None else None
    folder = writable_folder(out)
    compared = None
    if text is not None:
        # Models and tokenizers are slow to import, and sizes and structures need neither.
        from lightning_prune.commands.compared_text import ComparedText

        how = {"text_column": text_column, "begin_token": begin_token, "date": date}
        compared = ComparedText(folders, text, split, length, batch_size, **how)
    first, second = (
        replace(structure(at), path=path) for at, path in zip(folders, (a, b), strict=True)
    )
    comparison = Comparison(first, second)
    if compared is not None and where is not None:
        settings = compared.settings | {"device": str(where)}
        comparison = Comparison(first, second, compared.perplexities(where), settings)
    show(comparison_document(comparison), folder)
    kept.add(comparison_runs, comparison)
