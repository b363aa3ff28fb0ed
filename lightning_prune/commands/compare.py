"""`lightning-prune compare A B`: the size, structure and quality of two saved models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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
    images: str | None = None,
    split: Literal["test", "validation"] = "test",
    length: int | None = None,
    batch_size: int = 8,
    text_column: str = "text",
    begin_token: bool | None = None,
    date: str | None = None,
    classes: Sequence[str] | None = None,
    device: str | None = None,
    out: str | Path | None = None,
) -> None:
    """Compare two saved models, without loading them.

    Parameters, zeros, bytes, the heads and neurons of every block, what only one of them has and,
    with --text, perplexity on the same windows, or with --images accuracy on the same images; for
    that they are loaded.

    Args:
        a: a Hugging Face folder with safetensors, or "quickstart".
        b: another one.
        kept: where the results are added.
        text: also measure perplexity: the name of a text, a file or a folder, as data.source.
        images: also measure accuracy: a folder of images, or a dataset, as data.source of
            ImageData.
        split: of the text, or images.
        length: tokens in a window; None: what the models can take, 2048 at most.
        batch_size: windows, or images, in a batch.
        text_column: the column that holds the text.
        begin_token: whether windows begin with the begin token; None: as the tokenizer begins a
            text.
        date: the day that chat templates are told is today; None: today.
        classes: only images of these classes; None: all.
        device: where to run; None: a GPU if there is one.
        out: a folder for compare.json, compare.md and compare.svg.

    Raises:
        FileNotFoundError: there is no such model or text.
        ValueError: a folder is damaged, or the models cannot be compared on the text or images.
    """
    folders = [model_folder(path) for path in (a, b)]
    judges = text is not None or images is not None
    where = usable_device(device) if judges or device is not None else None
    if text is not None and images is not None:
        raise ValueError("--text is for language models, and --images for image classifiers")
    folder = writable_folder(out)
    compared: Any = None
    if images is not None:
        from lightning_prune.commands.compared_images import ComparedImages

        compared = ComparedImages(folders, images, split, batch_size, classes)
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
        values = compared.measured(where)
        comparison = Comparison(first, second, values, settings | dict(compared.more))
    show(comparison_document(comparison), folder)
    kept.add(comparison_runs, comparison)
