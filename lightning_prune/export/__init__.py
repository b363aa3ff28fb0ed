"""A pruned model as a Hugging Face folder, and back; as a GGUF file (`export.gguf`); for vLLM.

Importing this room makes the classes of pruned models known to transformers' Auto classes.
"""

from lightning_prune.export.hf import check_folder, save, to_hf
from lightning_prune.export.hub import check_login, check_repo, push
from lightning_prune.export.load import check_stored, load
from lightning_prune.export.reading import raw_config, read_config, read_tokenizer
from lightning_prune.export.registry import pruned_classes, register_all
from lightning_prune.export.semi_structured import to_semi_structured
from lightning_prune.export.stored import check_checksums
from lightning_prune.export.vllm import VLLMCheck, check_vllm

__all__ = [
    "VLLMCheck",
    "check_checksums",
    "check_folder",
    "check_login",
    "check_repo",
    "check_stored",
    "check_vllm",
    "load",
    "pruned_classes",
    "push",
    "raw_config",
    "read_config",
    "read_tokenizer",
    "register_all",
    "save",
    "to_hf",
    "to_semi_structured",
]

register_all()
