"""What is trained: modules with a Hugging Face model, and what recovers it after pruning."""

from lightning_prune.models.causal_lm import CausalLM
from lightning_prune.models.recovery.adapters import Adapter, LoRA, QLoRA
from lightning_prune.models.recovery.distillation import Distillation
from lightning_prune.models.recovery.merge import merged_model
from lightning_prune.models.recovery.zeros import KeepMasks

__all__ = ["Adapter", "CausalLM", "Distillation", "KeepMasks", "LoRA", "QLoRA", "merged_model"]
