"""`lightning-prune measure A [B …]`: size and speed of saved models on the device at hand."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_prune.checkpoints.names import weight_files
from lightning_prune.cli.arguments import Parser, add_models, folder, writable
from lightning_prune.cli.evaluate import known_models, loaded, say_files
from lightning_prune.evaluation import Evaluation, Size, Speed, check_numbers, generation_speed
from lightning_prune.models import CausalLM
from lightning_prune.report.evaluation import print_evaluations, write_evaluations

__all__ = ["NAME", "run"]

NAME = "measure"


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    given = _parser().parse_args(arguments)
    modules = known_models(given)
    for name, module in modules.items():
        for numbers in _numbers(given):
            try:
                check_numbers(module.max_position_embeddings, **numbers)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    writable(given.out)
    found = {
        name: Evaluation(size=_size(module), speeds=_speeds(module, given))
        for name, module in loaded(modules)
    }
    on = torch.cuda.get_device_name(given.device) if given.device.type == "cuda" else "cpu"
    settings = {
        "device": on,
        "dtype": given.dtype,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "new_tokens": given.new_tokens,
        "runs": given.runs,
        "torch": str(torch.__version__),
    }
    print_evaluations(found)
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    if given.out:
        say_files(write_evaluations(found, given.out, settings, "measurement"))


def _speeds(module: CausalLM, given: argparse.Namespace) -> list[Speed]:
    return [generation_speed(module.base, given.device, **one) for one in _numbers(given)]


def _numbers(given: argparse.Namespace) -> list[dict[str, int]]:
    """What is measured of each model."""
    same = {"new_tokens": given.new_tokens, "runs": given.runs}
    return [
        {"batch_size": batch_size, "prompt": length, **same}
        for batch_size in given.batch_sizes
        for length in given.lengths
    ]


def _size(module: CausalLM) -> Size:
    parameters = list(module.base.parameters())
    assert module.source is not None
    at = Path(module.source.location)
    return Size(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(p.count_nonzero()) for p in parameters),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
        disk=sum(file.stat().st_size for file in weight_files(at)) if at.is_dir() else None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"lightning-prune {NAME}",
        description="Measure saved models side by side: parameters, zeros, bytes on disk, and the "
        "speed and memory of generation with a KV cache on this machine. The others are compared "
        "with the first.",
    )
    add_models(parser)
    parser.add_argument(
        "--batch_sizes", nargs="+", type=int, default=[1, 8], metavar="N", help="default: 1 8"
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[128],
        metavar="TOKENS",
        help="tokens of the prompts; default: 128",
    )
    parser.add_argument("--new_tokens", type=int, default=32, help="generated after each prompt")
    parser.add_argument("--runs", type=int, default=5, help="timed runs; their median counts")
    parser.add_argument(
        "--out",
        type=folder,
        metavar="FOLDER",
        help="write measurement.json and measurement.md there",
    )
    return parser
