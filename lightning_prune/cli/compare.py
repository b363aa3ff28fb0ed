"""`lightning-prune compare A B`: the size, structure and perplexity of two saved models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lightning_prune.analysis.structure import structure
from lightning_prune.cli.arguments import Parser, device, folder, model_folder
from lightning_prune.data import TextData
from lightning_prune.evaluation import perplexity
from lightning_prune.models import CausalLM
from lightning_prune.models.loading import QUICKSTART
from lightning_prune.report.comparison import Comparison, print_comparison

__all__ = ["NAME", "run"]

NAME = "compare"

Batches = list[dict[str, torch.Tensor]]


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    given = _parser().parse_args(arguments)
    folders = [model_folder(path) for path in (given.a, given.b)]
    models = [CausalLM(at) for at in folders]
    batches, settings = _batches(models, given) if given.text else ([], {})
    a, b = (
        replace(structure(at), path=path)
        for at, path in zip(folders, (given.a, given.b), strict=True)
    )
    values = [_perplexity(model, batches, given.device) for model in models] if batches else None
    comparison = Comparison(a, b, values, settings)
    files = comparison.write(given.out) if given.out else {}
    print_comparison(comparison, files)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"lightning-prune {NAME}",
        description="Compare two saved models: parameters, zeros, bytes, the heads and neurons of "
        "every block, what only one of them has and, with --text, perplexity on the same windows.",
    )
    for name in ("a", "b"):
        parser.add_argument(name, help=f"a Hugging Face folder with safetensors, or {QUICKSTART!r}")
    parser.add_argument(
        "--out", type=folder, metavar="FOLDER", help="write compare.json, .md and .svg there"
    )
    parser.add_argument(
        "--text",
        metavar="SOURCE",
        help="also measure perplexity: the name of a text, a file or a folder, as data.source",
    )
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--seqlen", type=int, help="tokens in a window; default: as data.seqlen")
    parser.add_argument("--batch_size", type=int, default=8, help="windows in a batch")
    parser.add_argument("--text_column", default="text", help="the column that holds the text")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=best, help=f"default here: {best}")
    return parser


def _batches(models: Sequence[CausalLM], given: argparse.Namespace) -> tuple[Batches, Any]:
    """The windows of both models, after making sure that they are the same."""
    length = min(model.max_position_embeddings for model in models)
    tokenizers = [model.tokenizer for model in models]
    cut: list[Batches] = []
    vocabulary = min(model.vocabulary for model in models)
    for tokenizer in tokenizers:
        if tokenizer is not None:
            data = TextData(
                given.text,
                seqlen=given.seqlen,
                batch_size=given.batch_size,
                text_column=given.text_column,
            ).attach(tokenizer, length, vocabulary)
            split = data.test_dataloader if given.split == "test" else data.val_dataloader
            cut.append(list(split()))
    if not cut:
        raise ValueError("neither folder has a tokenizer, and perplexity needs one")
    if len(cut) == 2 and not _same(*cut):
        raise ValueError(
            "the tokenizers of the two models cut this text differently, so that their "
            "perplexities cannot be compared. Leave --text out to compare sizes and structure."
        )
    settings = {
        "text": given.text,
        "split": given.split,
        "windows": sum(len(batch["input_ids"]) for batch in cut[0]),
        "window": data.length,
        "begin": data.begun_with(given.split),
        "device": str(given.device),
    }
    if None in tokenizers:
        _check_vocabulary(models)
        without = "AB"[tokenizers.index(None)]
        settings["note"] = f"{without} has no tokenizer and was given the other's tokens"
    return cut[0], settings


def _same(a: Batches, b: Batches) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x["labels"], y["labels"]) for x, y in zip(a, b, strict=True)
    )


def _check_vocabulary(models: Sequence[CausalLM]) -> None:
    a, b = (model.source.config().vocab_size for model in models if model.source is not None)
    if a != b:
        raise ValueError(
            f"only one folder has a tokenizer, and the vocabularies differ ({a} and {b} tokens), "
            "so that perplexities cannot be compared. Leave --text out."
        )


def _perplexity(model: CausalLM, batches: Batches, device: torch.device) -> float:
    model.load()
    value = perplexity(model.base, batches, device)
    model.model = None  # room for the other one
    return value
