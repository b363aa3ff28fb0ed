"""Where a model comes from: a folder, the hub, the package, or a configuration."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import model_info, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, HTTPError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lightning_prune.anatomy import check_unquantised, family_of
from lightning_prune.checkpoints.bundled import QUICKSTART, bundled_model, meant_model
from lightning_prune.checkpoints.checksums import check_checksums
from lightning_prune.checkpoints.config import (
    plain_image_processor,
    raw_config,
    read_config,
    read_image_processor,
    read_tokenizer,
)
from lightning_prune.checkpoints.head import config_follows, warn_of_own_head
from lightning_prune.checkpoints.load import PlacementName, load
from lightning_prune.checkpoints.names import PROCESSOR
from lightning_prune.models.recovery.zeros import check_zeros
from lightning_prune.plan import Plan
from lightning_prune.surgery import check_masks

__all__ = ["DType", "RandomWeights", "Source", "check_origin"]

FILES = ("*.json", "*.safetensors", "*.py")
"""Of a model on the hub, what loading it takes."""

DType = Literal["auto", "float32", "bfloat16", "float16"]


class Source:
    """A model in a folder or on the hub.

    Args:
        path: a Hugging Face folder, a hub name, or "quickstart".
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run Python code that comes with the model.
        auto_class: of transformers, for the kind of model to make of the weights.

    Raises:
        FileNotFoundError: neither a folder nor a hub model of that name can be found.
    """

    def __init__(
        self,
        path: str,
        revision: str | None = None,
        trust_remote_code: bool = False,
        auto_class: Any = AutoModelForCausalLM,
    ) -> None:
        self.path = path
        self.auto_class = auto_class
        self.location = _locate(path, revision)
        self.is_folder = Path(self.location).is_dir()
        self._arguments: dict[str, Any] = {
            "revision": revision or "main",
            "trust_remote_code": trust_remote_code,
        }

    @property
    def name(self) -> str:
        """What plans and cards call the model: that of a folder cannot be taken for a hub name."""
        if bundled_model(self.path) is not None or not self.is_folder:
            return self.path
        return f"./{self.path}" if re.match(r"\w", self.path) else self.path

    def config(self) -> PreTrainedConfig:
        """The model's configuration.

        Raises:
            ValueError: the model type is unknown, the model is quantised, or the file is damaged.
        """
        if self.is_folder:
            folder = Path(self.location)
            if self._arguments["trust_remote_code"]:  # nothing is run that was not saved there
                check_checksums(folder, weights=False)
            self._check(raw_config(folder))
            return read_config(folder, **self._arguments)
        raw, _ = PreTrainedConfig.get_config_dict(self.location, **self._arguments)
        self._check(raw)
        return AutoConfig.from_pretrained(self.location, **self._arguments)

    def model(
        self,
        dtype: DType,
        attn_implementation: str | None,
        placement: PlacementName = "memory",
        changes: Path | None = None,
    ) -> PreTrainedModel:
        """The model with its weights, on the CPU, in evaluation mode.

        Args:
            dtype: "auto" is the type that the weights are saved in.
            attn_implementation: as in transformers; None lets it choose.
            placement: as of `lightning_prune.load`.
            changes: as of `lightning_prune.load`.

        Raises:
            ValueError: as of `config`, there are no safetensors, or weights are missing.
        """
        arguments = self._arguments | {
            "config": self.config(),
            "dtype": dtype,
            "attn_implementation": attn_implementation,
        }
        if self.is_folder or placement == "checkpoint":
            arguments |= {"placement": placement, "changes": changes}
            model: Any = load(self._folder(), auto=self.auto_class, **arguments)
        else:
            try:
                model = self.auto_class.from_pretrained(
                    self.location, use_safetensors=True, **arguments
                )
            except OSError as error:
                raise ValueError(
                    f"the model {self.path!r} cannot be loaded: {_first_line(error)} Weights are "
                    "read from safetensors only."
                ) from error
            if config_follows(model):
                warn_of_own_head(self.path)
        assert isinstance(model, PreTrainedModel)
        model.config._name_or_path = self.name  # not where the package is installed
        return model

    def plan(self, model: PreTrainedModel) -> Plan | None:
        """What was pruned of the model, if its folder says so.

        Args:
            model: as `model` has loaded it.

        Raises:
            ValueError: the plan is damaged, or does not fit the model: names, shapes, or zeros.
        """
        if not (self.is_folder and (Path(self.location) / "plan.json").is_file()):
            return None
        plan = Plan.load(self.location)
        check_masks(model, plan)
        check_zeros(model, plan, f"in the folder {self.path!r}")
        return plan

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's tokenizer; None for a folder that holds none.

        Raises:
            ValueError: the folder's is damaged.
        """
        if self.is_folder:
            return read_tokenizer(Path(self.location), **self._arguments)
        return AutoTokenizer.from_pretrained(self.location, **self._arguments)

    def image_processor(self) -> Any:
        """The model's image processor; a plain one, with a warning, for a folder without.

        Raises:
            ValueError: it is damaged, or a model on the hub has none.
        """
        if self.is_folder and not (Path(self.location) / PROCESSOR).is_file():
            message = (
                f"{self.path!r} has no image processor ({PROCESSOR}): pixels are scaled from -1 to "
                "1. Where the model was trained on others, put its processor there."
            )
            warnings.warn(message, stacklevel=2)
            return plain_image_processor(self.config())
        return read_image_processor(self.location, **self._arguments)

    def _folder(self) -> Path:
        """Where the model's files are; those on the hub are fetched."""
        if self.is_folder:
            return Path(self.location)
        revision = self._arguments["revision"]
        return Path(snapshot_download(self.location, revision=revision, allow_patterns=[*FILES]))

    def _check(self, raw: dict[str, Any]) -> None:
        family_of(str(raw.get("model_type")))
        check_unquantised(f"the model {self.path!r}", raw)


class RandomWeights:
    """A model that starts from random weights.

    Args:
        config: keys of the Hugging Face configuration, with `model_type`.
        auto_class: of transformers, for the kind of model to make.

    Raises:
        ValueError: the model type is unknown.
    """

    def __init__(self, config: dict[str, Any], auto_class: Any = AutoModelForCausalLM) -> None:
        family_of(str(config.get("model_type")))
        self._keys = config
        self.auto_class = auto_class

    def config(self) -> PreTrainedConfig:
        """The model's configuration."""
        return AutoConfig.for_model(**self._keys)

    def model(self, dtype: DType, attn_implementation: str | None) -> PreTrainedModel:
        """The model, on the CPU.

        Args:
            dtype: "auto" is the configuration's own dtype, or float32.
            attn_implementation: as in transformers; None lets it choose.
        """
        config = self.config()
        if dtype != "auto":
            config.dtype = getattr(torch, dtype)
        return self.auto_class.from_config(
            config, dtype=config.dtype or torch.float32, attn_implementation=attn_implementation
        )

    def plan(self, model: PreTrainedModel) -> None:
        """Nothing has been pruned of it."""

    def tokenizer(self) -> None:
        """It has none yet."""

    def image_processor(self) -> Any:
        """A plain one: images of the size that the model reads, from -1 to 1."""
        return plain_image_processor(self.config())


def check_origin(
    name: str, path: str | None, config: dict[str, Any] | None, placement: PlacementName
) -> None:
    """Refuse a model of which it is not said where it comes from.

    Args:
        name: of the class that is asked for it.
        path: of a saved model.
        config: of one to train from random weights.
        placement: of the weights.

    Raises:
        ValueError: not one of path and config, or a placement of saved weights and no
            path.
    """
    if (path is None) == (config is None):
        raise ValueError(
            f"{name} takes path, a model to load, or config, one to train from random weights: one "
            f"of the two. Got path={path!r}, config={config!r}."
        )
    if placement != "memory" and path is None:
        raise ValueError(f"placement={placement!r} is of saved weights: give path, not config")


def _locate(path: str, revision: str | None) -> str:
    if (bundled := bundled_model(path)) is not None:
        return str(bundled)
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"the folder {path!r} holds no model: it has no config.json. Give the folder that "
                "holds config.json and model.safetensors."
            )
        return str(folder)
    if reason := _why_not_on_hub(path, revision):
        raise FileNotFoundError(
            f"no model {path!r}: there is no such folder, and no such model on the Hugging Face "
            f"hub ({reason}). Give a folder that holds config.json and model.safetensors, a hub "
            f"name such as 'meta-llama/Llama-3.2-1B', or {QUICKSTART!r}."
            f"{meant_model(path)}"
        )
    return path


def _why_not_on_hub(name: str, revision: str | None) -> str | None:
    """Ask once and briefly, where loading would retry for long; None: the model is there."""
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            model_info(name, revision=revision, timeout=10)
    except HFValidationError:
        return "this cannot be the name of one"
    except (OSError, HTTPError) as error:
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
