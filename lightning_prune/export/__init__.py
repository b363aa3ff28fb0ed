"""Pruned models for elsewhere: Hugging Face folders and the hub, GGUF files, vLLM, 2:4 kernels."""

from lightning_prune.export.semi_structured import to_semi_structured

__all__ = ["to_semi_structured"]
