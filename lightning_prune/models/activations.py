"""What a training step keeps of the pass forward."""

from __future__ import annotations

from transformers import PreTrainedModel

__all__ = ["checkpoint_activations"]


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep only the blocks' inputs for the backward pass."""
    # The name changed during transformers 5; the old one warns.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
