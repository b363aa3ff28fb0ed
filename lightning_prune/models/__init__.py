"""What is trained: causal language models, and the adapters that recover them after pruning."""

from lightning_prune.models.adapter import Adapter, LoRA, QLoRA
from lightning_prune.models.causal_lm import CausalLM
from lightning_prune.models.distillation import Distillation
from lightning_prune.models.merge import merged_model
from lightning_prune.models.zeros import KeepMasks

__all__ = ["Adapter", "CausalLM", "Distillation", "KeepMasks", "LoRA", "QLoRA", "merged_model"]
