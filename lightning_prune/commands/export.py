"""`lightning-prune export PATH --to …`: a saved model for another place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning_prune.checkpoints.bundled import bundled_model
from lightning_prune.checkpoints.load import check_stored
from lightning_prune.checkpoints.names import weight_files
from lightning_prune.commands.arguments import model_folder
from lightning_prune.commands.output import say
from lightning_prune.export.hf import to_hf
from lightning_prune.export.hub import check_login, check_repo
from lightning_prune.export.hub import push as push_to_hub
from lightning_prune.export.vllm import check_vllm
from lightning_prune.models.loading import Source

__all__ = ["export"]

OPTIONS: dict[str, tuple[str, ...]] = {
    "shard_size": ("hf",),
    "pad": ("gguf",),
    "tp": ("vllm-check",),
    "out": ("hf", "gguf", "onnx"),
    **dict.fromkeys(("dtype", "push", "public"), ("hf", "gguf")),
}
"""Which targets an option is for; the others are for all."""

LONG = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
SHORT = {long: short for short, long in LONG.items()}


def export(
    path: str,
    *,
    to: Literal["hf", "gguf", "onnx", "vllm-check"],
    out: str | Path | None = None,
    dtype: Literal["float32", "float16", "bfloat16", "q8_0", "f32", "f16", "bf16"] | None = None,
    shard_size: str | None = None,
    pad: int | None = None,
    tp: int | None = None,
    push: str | None = None,
    public: bool = False,
    verify: bool = True,
) -> None:
    """Write a saved model for another place, or check whether vLLM can serve it.

    Args:
        path: a Hugging Face folder with safetensors, even or uneven, or "quickstart".
        to: "hf", a Hugging Face folder; "gguf", a file for llama.cpp; "onnx", of an image
            classifier, a file for onnxruntime; "vllm-check", whether vLLM can serve the folder.
        out: the folder or file to write; None: NAME.gguf or NAME.onnx beside the folder, and with
            --to hf and --push none: the folder is pushed as it is.
        dtype: of the weights; None: as they are.
        shard_size: hf: the largest file, such as 5GB; None: 50GB.
        pad: gguf: widen each MLP with zeros to a multiple of it: 32 for q8_0, 256 for k-quants.
        tp: vllm-check: GPUs that share each matrix.
        push: USER/NAME: also upload it to the Hugging Face hub, privately.
        public: make a new repository for everybody.
        verify: compare the folder with its checksums.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the model cannot be written or served so, its files are damaged, or an option
            is of another target.
        ImportError: what the target needs is not installed.
    """
    folder = Path(model_folder(path))
    Source(str(folder)).config()  # refuses families that we do not know
    options = {"out": out, "dtype": dtype, "shard_size": shard_size, "pad": pad, "tp": tp}
    _refuse_other_options(to, options | {"push": push, "public": public})
    if to == "hf" and out is not None and Path(out).resolve() == folder.resolve():
        raise ValueError(f"--out {out} is the folder to export; give another place")
    if push:
        check_repo(push)
        check_login()
    elif public:
        raise ValueError("--public is for --push, and nothing is pushed")
    if to == "vllm-check":
        _check_vllm(folder, 1 if tp is None else tp, verify)
        return
    if to == "hf":
        made = _to_hf(folder, out, dtype, shard_size, bool(push), verify)
    else:
        beside = folder.parent if bundled_model(path) is None else Path()  # not in the package
        place = Path(out) if out is not None else beside / f"{folder.resolve().name}.{to}"
        if to == "onnx":
            _to_onnx(folder, place, verify)
            return
        made = _to_gguf(folder, place, dtype, 1 if pad is None else pad, verify)
    if push:
        say(push_to_hub(made, push, private=not public))


def _refuse_other_options(to: str, options: dict[str, Any]) -> None:
    for option, targets in OPTIONS.items():
        if to not in targets and options[option] not in (None, False):
            known = " and ".join(f"--to {target}" for target in targets)
            raise ValueError(f"--{option} is for {known}, and this is --to {to}")


def _to_hf(
    folder: Path,
    out: str | Path | None,
    dtype: str | None,
    shard_size: str | None,
    push: bool,
    verify: bool,
) -> Path:
    if dtype == "q8_0":
        raise ValueError(
            "--dtype q8_0 is of GGUF files; Hugging Face folders have float32, float16, bfloat16"
        )
    if out is None:
        if not push or dtype or shard_size:
            raise ValueError("--to hf writes a folder: give --out FOLDER")
        check_stored(folder, verify=verify)
        return folder
    asked = LONG.get(dtype, dtype) if dtype is not None else "auto"
    made = to_hf(folder, out, asked, shard_size or "50GB", verify=verify)
    size = sum(path.stat().st_size for path in weight_files(made))
    say(f"{made}  ({size / 1e6:,.1f} MB of weights)")
    return made


def _to_gguf(folder: Path, out: Path, dtype: str | None, pad: int, verify: bool) -> Path:
    from lightning_prune.export.gguf import to_gguf  # needs a package of its own

    asked: Any = SHORT.get(dtype, dtype) if dtype is not None else None
    file = to_gguf(folder, out, asked, pad, verify=verify)
    for note in file.notes:
        say(f"note: {note}")
    say(
        f"{file.path}  ({file.size / 1e6:,.1f} MB, {file.architecture}, {file.dtype}, "
        f"{file.parameters:,} parameters)"
    )
    return file.path


def _to_onnx(folder: Path, out: Path, verify: bool) -> None:
    from lightning_prune.export.onnx import to_onnx  # needs packages of its own

    file = to_onnx(folder, out, verify=verify)
    say(
        f"{file.path}  ({file.size / 1e6:,.1f} MB, opset {file.opset}; onnxruntime gives the "
        f"model's logits, to {file.difference:.0e} of the largest)"
    )


def _check_vllm(folder: Path, tp: int, verify: bool) -> None:
    check = check_vllm(folder, tp, verify=verify)
    if not check.problems:
        by = "its own class" if check.native else "its Transformers modelling backend"
        say(f"vLLM serves this folder with {by}")
    for caution in check.cautions:
        say(f"note: {caution}")
    say(f"tensor-parallel sizes that fit: {', '.join(map(str, check.fits)) or 'none'}")
    if check.problems:
        raise ValueError(f"vLLM cannot serve {folder} on {tp} GPU(s): {'; '.join(check.problems)}")
    say(str(check.command))
