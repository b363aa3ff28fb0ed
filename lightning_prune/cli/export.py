"""`lightning-prune export PATH --to …`: a saved model for another place."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lightning_prune.checkpoints.load import check_stored
from lightning_prune.checkpoints.names import weight_files
from lightning_prune.cli.arguments import Parser, known_model
from lightning_prune.cli.errors import fail
from lightning_prune.export.hf import to_hf
from lightning_prune.export.hub import check_login, check_repo, push
from lightning_prune.export.vllm import check_vllm
from lightning_prune.models.loading import QUICKSTART

__all__ = ["NAME", "run"]

NAME = "export"

OPTIONS: dict[str, tuple[str, ...]] = {
    "shard_size": ("hf",),
    "pad": ("gguf",),
    "tp": ("vllm-check",),
    **dict.fromkeys(("out", "dtype", "push", "public"), ("hf", "gguf")),
}
"""Which targets an option is for; the others are for all."""
_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "q8_0": "q8_0"}


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    given = _parser().parse_args(arguments)
    folder = Path(known_model(given.path))
    _refuse_other_options(given)
    if given.to == "hf" and given.out is not None and given.out.resolve() == folder.resolve():
        fail(f"--out {given.out} is the folder to export; give another place")
    if given.push:
        check_repo(given.push)
        check_login()
    elif given.public:
        fail("--public is for --push, and nothing is pushed")
    if given.to == "vllm-check":
        _check_vllm(folder, given)
        return
    made = _to_hf(folder, given) if given.to == "hf" else _to_gguf(folder, given)
    if given.push:
        _say(push(made, given.push, private=not given.public))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"lightning-prune {NAME}",
        description="Write a saved model for another place, or check whether vLLM can serve it.",
    )
    parser.add_argument("path", help="a Hugging Face folder with safetensors, even or uneven")
    parser.add_argument(
        "--to",
        required=True,
        choices=("hf", "gguf", "vllm-check"),
        help="a Hugging Face folder; a GGUF file for llama.cpp; whether vLLM can serve the folder",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PLACE",
        help="the folder or file to write; default: NAME.gguf beside the folder; with --to hf and "
        "--push, none: the folder is pushed as it is",
    )
    parser.add_argument(
        "--dtype", choices=(*_DTYPES, "f32", "f16", "bf16"), help="default: as the weights are"
    )
    parser.add_argument("--shard-size", help="hf: the largest file, such as 5GB; default: 50GB")
    parser.add_argument(
        "--pad",
        type=int,
        metavar="N",
        help="gguf: widen each MLP with zeros to a multiple of N: 32 for q8_0, 256 for k-quants",
    )
    parser.add_argument(
        "--tp", type=int, metavar="N", help="vllm-check: GPUs that share each matrix"
    )
    parser.add_argument(
        "--push", metavar="USER/NAME", help="also upload it to the Hugging Face hub, privately"
    )
    parser.add_argument("--public", action="store_true", help="a new repository is for everybody")
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the folder with its checksums"
    )
    return parser


def _refuse_other_options(given: argparse.Namespace) -> None:
    for option, targets in OPTIONS.items():
        if given.to not in targets and getattr(given, option) not in (None, False):
            known = " and ".join(f"--to {target}" for target in targets)
            fail(f"--{option.replace('_', '-')} is for {known}, and this is --to {given.to}")


def _to_hf(folder: Path, given: argparse.Namespace) -> Path:
    if given.dtype == "q8_0":
        fail("--dtype q8_0 is of GGUF files; Hugging Face folders have float32, float16, bfloat16")
    changes = given.dtype or given.shard_size
    if given.out is None:
        if not given.push or changes:
            fail("--to hf writes a folder: give --out FOLDER")
        check_stored(folder, verify=not given.no_verify)
        return folder
    names = {short: long for long, short in _DTYPES.items()}
    dtype = names.get(given.dtype, given.dtype) or "auto"
    out = to_hf(folder, given.out, dtype, given.shard_size or "50GB", verify=not given.no_verify)
    size = sum(path.stat().st_size for path in weight_files(out))
    _say(f"{out}  ({size / 1e6:,.1f} MB of weights)")
    return out


def _to_gguf(folder: Path, given: argparse.Namespace) -> Path:
    try:
        from lightning_prune.export.gguf import to_gguf
    except ImportError as error:
        fail(str(error))
    beside = Path() if given.path == QUICKSTART else folder.parent  # which lies in the package
    out = given.out or beside / f"{folder.resolve().name}.gguf"
    dtype = _DTYPES.get(given.dtype, given.dtype)
    file = to_gguf(
        folder, out, dtype, 1 if given.pad is None else given.pad, verify=not given.no_verify
    )
    for note in file.notes:
        _say(f"note: {note}")
    _say(
        f"{file.path}  ({file.size / 1e6:,.1f} MB, {file.architecture}, {file.dtype}, "
        f"{file.parameters:,} parameters)"
    )
    return file.path


def _check_vllm(folder: Path, given: argparse.Namespace) -> None:
    tp = 1 if given.tp is None else given.tp
    check = check_vllm(folder, tp, verify=not given.no_verify)
    if not check.problems:
        by = "its own class" if check.native else "its Transformers modelling backend"
        _say(f"vLLM serves this folder with {by}")
    for caution in check.cautions:
        _say(f"note: {caution}")
    _say(f"tensor-parallel sizes that fit: {', '.join(map(str, check.fits)) or 'none'}")
    if check.problems:
        fail(f"vLLM cannot serve {folder} on {tp} GPU(s): {'; '.join(check.problems)}")
    _say(str(check.command))


def _say(line: str) -> None:
    Console().print(Text(line), soft_wrap=True)
