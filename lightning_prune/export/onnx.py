"""An image classifier as an ONNX file, through torch's own exporter, checked in onnxruntime.

The graph takes `pixel_values` (B, channels, height, width), of any B and of the size that the
model's image processor makes, and gives `logits` (B, classes). Zeros stay zeros in it, and what was
cut is not there; blocks may differ.

Axes: B images of a batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy import family_of
from lightning_prune.checkpoints.config import pixels_size, read_config, read_image_processor
from lightning_prune.checkpoints.load import load
from lightning_prune.checkpoints.names import PROCESSOR
from lightning_prune.files import replacing

__all__ = ["OnnxFile", "check_packages", "to_onnx"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3
"""Of logits, relative to the largest: kernels of two libraries add in another order."""


@dataclass(frozen=True)
class OnnxFile:
    """A file that was written.

    Attributes:
        path: of it.
        size: in bytes.
        opset: of ONNX that it needs.
        difference: the largest between its logits and the model's, relative to the largest logit.
    """

    path: Path
    size: int
    opset: int
    difference: float


class _Logits(nn.Module):
    """A classifier that takes and gives tensors alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def check_packages() -> None:
    """Refuse to begin without what writes and runs ONNX files.

    Raises:
        ImportError: a package is missing.
    """
    for name in NEEDED:
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(
                f"--to onnx needs {name}: pip install 'lightning-prune[onnx]'"
            ) from error


def to_onnx(folder: str | Path, out: str | Path, verify: bool = True) -> OnnxFile:
    """Write a saved image classifier as one ONNX file, in float32, and run it.

    Args:
        folder: a Hugging Face folder, even or uneven.
        out: the file to write.
        verify: compare the folder with its checksums.

    Raises:
        FileNotFoundError: no such folder.
        ImportError: a package is missing.
        ValueError: the model is no image classifier, or what onnxruntime computes of the file is
            not what the model does; then nothing is written.
    """
    model_type = read_config(Path(folder)).model_type
    if family_of(model_type).task.judged_by != "accuracy":
        raise ValueError(
            f"--to onnx is for image classifiers, and {folder} holds a {model_type}; language "
            "models go to --to gguf or --to hf"
        )
    check_packages()
    model = load(folder, dtype="float32", verify=verify, attn_implementation="sdpa")
    config: Any = model.config
    has_processor = (Path(folder) / PROCESSOR).is_file()
    size = pixels_size(read_image_processor(folder) if has_processor else None, config)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, config.num_channels, *size, generator=generator)
    logits = _Logits(model)
    with replacing(Path(out)) as temporary:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                logits,
                (pixels,),
                dynamo=True,
                input_names=["pixel_values"],
                output_names=["logits"],
                dynamic_shapes={"pixel_values": {0: torch.export.Dim.DYNAMIC}},
                verbose=False,
            )
            assert program is not None
            program.save(str(temporary), external_data=False)
        difference = max(
            _difference(temporary, logits, pixels[:1]), _difference(temporary, logits, pixels)
        )
        if not difference <= TOLERANCE:
            raise ValueError(
                f"onnxruntime computes other logits of {out} than the model does, by "
                f"{difference:.1e} of the largest; nothing was written"
            )
    opset = max(item.version for item in program.model_proto.opset_import if not item.domain)
    return OnnxFile(Path(out), Path(out).stat().st_size, opset, difference)


@torch.no_grad()
def _difference(path: Path, model: nn.Module, pixels: torch.Tensor) -> float:
    """Between the logits of a file and of the model, relative to the largest."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(["logits"], {"pixel_values": pixels.numpy()})[0])
    expected = model(pixels)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own stages."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
