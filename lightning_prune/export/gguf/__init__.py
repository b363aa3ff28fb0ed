"""GGUF files, for llama.cpp and what is built on it."""

try:
    import gguf as _gguf  # noqa: F401
except ImportError as error:
    raise ImportError(
        "writing GGUF files needs the package gguf: pip install 'lightning-prune[export]'"
    ) from error

from lightning_prune.export.gguf.write import GGUFDType, GGUFFile, to_gguf

__all__ = ["GGUFDType", "GGUFFile", "to_gguf"]
