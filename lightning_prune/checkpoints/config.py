"""What a Hugging Face folder says of its model: config, tokenizer and image processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from lightning_prune.checkpoints.bundled import meant_model
from lightning_prune.checkpoints.names import CONFIG, PROCESSOR

__all__ = [
    "pixels_size",
    "plain_image_processor",
    "raw_config",
    "read_config",
    "read_image_processor",
    "read_tokenizer",
    "reason_of",
]


def raw_config(folder: Path) -> dict[str, Any]:
    """The keys of config.json, as they stand there.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"no model at {str(folder)!r}: {path} does not exist. Give the folder that {CONFIG} "
            f"lies in.{meant_model(str(folder))}"
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({reason_of(error)}). Save or download it again."
        ) from error


def read_config(folder: Path, **kwargs: Any) -> PreTrainedConfig:
    """The model's configuration.

    Args:
        folder: a Hugging Face folder.
        kwargs: handed on to `AutoConfig.from_pretrained`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or means nothing to transformers.
    """
    raw_config(folder)
    try:
        return AutoConfig.from_pretrained(folder, **kwargs)
    except Exception as error:  # what transformers raises depends on the key
        raise ValueError(
            f"{folder / CONFIG} cannot be used ({reason_of(error)}). Correct it, or save or "
            "download it again."
        ) from error


def read_tokenizer(folder: Path, **kwargs: Any) -> PreTrainedTokenizerBase | None:
    """The model's tokenizer; None where no file of one is there.

    Args:
        folder: a Hugging Face folder.
        kwargs: handed on to `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: its files are damaged, or some are missing.
    """
    files = sorted(
        path.name for pattern in ("tokenizer*", "vocab*") for path in folder.glob(pattern)
    )
    if not files:
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **kwargs)
    except Exception as error:  # what transformers and tokenizers raise depends on the file
        raise ValueError(
            f"the tokenizer in {folder} ({', '.join(files)}) cannot be read: {reason_of(error)}. "
            "Save or download its files again."
        ) from error
    return tokenizer


def read_image_processor(location: str | Path, **kwargs: Any) -> Any:
    """The model's image processor: what makes pixels of images.

    Always transformers' one that works with Pillow, whose pixels are the same on every machine; its
    other one, of torchvision, resizes a little otherwise.

    Args:
        location: a Hugging Face folder, or a name on the hub.
        kwargs: handed on to `AutoImageProcessor.from_pretrained`.

    Raises:
        ValueError: its file is damaged, or missing.
    """
    try:
        return AutoImageProcessor.from_pretrained(location, backend="pil", **kwargs)
    except Exception as error:  # what transformers raises depends on the file
        raise ValueError(
            f"the image processor of {str(location)!r} ({PROCESSOR}) cannot be used "
            f"({reason_of(error)}). Save or download it again."
        ) from error


def plain_image_processor(config: Any) -> Any:
    """What makes pixels from -1 to 1, of the size and the channels that a model reads.

    Raises:
        ImportError: Pillow is not installed.
    """
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    height, width = _image_size(config)
    even = [0.5] * config.num_channels
    return ViTImageProcessorPil(
        size={"height": height, "width": width}, image_mean=even, image_std=even
    )


def pixels_size(processor: Any, config: Any) -> tuple[int, int]:
    """Height and width of the pixels that a model is given.

    Its image processor says it: DINOv2's classifiers, of images of 518 pixels by their configs, are
    given 224. Of one that leaves sizes alone it is the config's.

    Args:
        processor: the model's image processor; None: it has none.
        config: the model's.
    """
    height, width = _image_size(config)
    if processor is None:
        return height, width
    blank_CHW = np.zeros((config.num_channels, height, width), np.uint8)
    how = {"input_data_format": "channels_first", "return_tensors": "pt"}
    pixels_CHW = processor(blank_CHW, **how)["pixel_values"][0]
    return int(pixels_CHW.shape[-2]), int(pixels_CHW.shape[-1])


def _image_size(config: Any) -> tuple[int, int]:
    size = config.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def reason_of(error: Exception) -> str:
    """What an error of another library says, with its kind, on one line and not too long."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
