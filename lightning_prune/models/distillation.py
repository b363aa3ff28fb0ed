"""Knowledge distillation: a teacher, the dense model as a rule, says what the student is to say.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2 and 2.1 (soft
targets at a temperature, times its square, beside the true ones); Sun et al. 2019, "Patient
Knowledge Distillation for BERT Model Compression", equation 7 (hidden states).
Differs: of the hidden states, the squared distance is divided by the teacher's own square, token by
token, where Sun et al. normalise both: a few huge activations would make up the whole loss, and a
pruned model has to reproduce the size of a state too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lightning_prune.models.distiller import Distiller, blocks_of
from lightning_prune.models.loading import DType, Source
from lightning_prune.models.sharding import data_mesh, shard

if TYPE_CHECKING:
    from lightning_prune.models.causal_lm import CausalLM

__all__ = ["Distillation"]


class Distillation:
    """Train the pruned model to say what a teacher says.

    The loss of a batch is

        (1 - weight) * CE + weight * temperature² * KL + hidden * H

    CE: cross entropy of the next token. KL: divergence of the student's distribution from the
    teacher's, both at the temperature, mean over the same tokens. H: of every block that is kept,
    the squared distance of its output from the teacher's, relative to the latter; mean over tokens
    and blocks. Logged as `train_loss`, `train_cross_entropy`, `train_kl` and `train_hidden`.

    The teacher is no part of the module: not in its state dict, its checkpoints or its optimizer.
    Every process has one. With FSDP2 it is sharded as the student is, unless `device` is given.

    Args:
        teacher: a Hugging Face folder or hub name; None: the model of CausalLM's own `path`, dense,
            loaded once more when pruning is done and training starts, also when a run is resumed.
        weight: share of the teacher's distribution in the loss, 0 to 1.
        temperature: what the logits are divided by.
        hidden: weight of the loss of hidden states; 0: none.
        dtype: type of the teacher's weights; "auto" is the type that they are saved in.
        device: where the teacher is, such as "cpu" or "cuda:1"; None: where the student is.
        chunk: tokens whose logits are held at once; those of the others are computed again for the
            gradient. None: as many as 256 MiB hold.

    Raises:
        ValueError: an argument is out of range, or nothing is asked of the teacher.
    """

    def __init__(
        self,
        teacher: str | None = None,
        weight: float = 0.5,
        temperature: float = 2.0,
        hidden: float = 0.0,
        dtype: DType = "auto",
        device: str | None = None,
        chunk: int | None = None,
    ) -> None:
        if not 0 <= weight <= 1 or hidden < 0 or not weight + hidden:
            raise ValueError(
                f"Distillation: weight={weight} must be in [0, 1], hidden={hidden} 0 or more, and "
                "not both 0."
            )
        if temperature <= 0 or (chunk is not None and chunk < 1):
            raise ValueError(
                f"Distillation: temperature={temperature} must be above 0, chunk={chunk} 1 or more."
            )
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        self.hidden = hidden
        self.dtype = dtype
        self.device = device
        self.chunk = chunk

    def source(self, module: CausalLM) -> Source:
        """Where the teacher comes from.

        Raises:
            FileNotFoundError: there is no model of that name.
            ValueError: none is named, and the student starts from random weights.
        """
        if self.teacher is not None:
            return Source(self.teacher, None, module.trust_remote_code)
        if module.source is None:
            raise ValueError(
                "Distillation(teacher=None) loads the dense model from CausalLM's path once more, "
                "and this model is made from a config. Name a teacher."
            )
        return module.source

    def check(self, module: CausalLM) -> None:
        """Refuse a teacher that does not fit, from its files alone, before anything is pruned.

        Raises:
            FileNotFoundError: there is no model of that name.
            ValueError: its device is not there, it is the pruned model itself, or it has another
                vocabulary or, where hidden states are compared, another hidden size or number of
                blocks.
        """
        source = self.source(module)
        if self.device is not None:
            _check_device(self.device)
        if self.teacher is None:
            if module.plans:
                raise ValueError(
                    f"Distillation(teacher=None) takes the model of path={module.path!r} for its "
                    "teacher, and that is pruned already. Name the dense model as the teacher."
                )
            return
        ours, theirs = module.base.config, source.config()
        name = f"the teacher {self.teacher!r}"
        if ours.vocab_size != theirs.vocab_size:
            raise ValueError(
                f"{name} has a vocabulary of {theirs.vocab_size} tokens, and the model one of "
                f"{ours.vocab_size}. Logits can be compared within one vocabulary only: take a "
                "teacher of the same family."
            )
        tokenizers = (module.tokenizer, source.tokenizer())
        if None not in tokenizers:
            mine, its = (tokenizer.get_vocab() for tokenizer in tokenizers if tokenizer is not None)
            other = sum(its.get(token) != number for token, number in mine.items())
            if other:
                raise ValueError(
                    f"{name} has as many tokens as the model, but {other} of them stand for "
                    "something else. Take a teacher with the same tokenizer."
                )
        dropped = len(module.plan.dropped) if module.plan is not None else 0
        sizes = {
            "a hidden size of": (ours.hidden_size, theirs.hidden_size),
            "a number of blocks of": (ours.num_hidden_layers + dropped, theirs.num_hidden_layers),
        }
        for what, (own, its_own) in sizes.items():
            if self.hidden and own != its_own:
                raise ValueError(
                    f"hidden={self.hidden} compares hidden states block by block, and {name} has "
                    f"{what} {its_own}, the model {own} before pruning. Set hidden to 0."
                )

    def start(self, module: CausalLM) -> Distiller:
        """Load the teacher, frozen and in evaluation mode, for a module that is ready to train.

        Raises:
            ValueError: the teacher would be the student itself.
        """
        if self.teacher is None and not module.plans:
            raise ValueError(
                f"Distillation(teacher=None) makes the model of path={module.path!r} its own "
                "teacher, and nothing has pruned it in this run. Name the dense model as the "
                "teacher, or a method under the trainer's callbacks."
            )
        teacher: Any = self.source(module).model(self.dtype, module.attn_implementation)
        teacher.requires_grad_(False).eval()
        if self.device is not None:
            teacher.to(self.device)
        elif module.sharded:
            assert module.device_mesh is not None
            mesh, precision = data_mesh(module.device_mesh), str(module.trainer.precision)
            shard(teacher, blocks_of(teacher), mesh, precision)
        else:
            teacher.to(module.device)
        gone = module.plan.dropped if module.plan is not None else set()
        return Distiller(self, module, teacher, gone)


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"Distillation: device={name!r} cannot be used for the teacher: {reason}"
        ) from error
