"""Knowledge distillation: a teacher, the dense model as a rule, says what the student is to say.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2 and 2.1 (soft
targets at a temperature, times its square, beside the true ones); Sun et al. 2019, "Patient
Knowledge Distillation for BERT Model Compression", equation 7 (hidden states).
Differs: of the hidden states, the squared distance is divided by the teacher's own square, token by
token, where Sun et al. normalise both: a few huge activations would make up the whole loss, and a
pruned model has to reproduce the size of a state too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from lightning_prune.checks import known_arguments
from lightning_prune.models.loading import DType, Source
from lightning_prune.models.recovery.distiller import Distiller
from lightning_prune.models.recovery.student import Student

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

    Attributes:
        logged: names that are logged beside `train_loss`.

    Args:
        teacher: a Hugging Face folder or hub name; None: the model of the module's own `path`,
            dense, loaded once more when pruning is done and training starts, also when a run is
            resumed.
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

    logged: ClassVar[tuple[str, ...]] = ("train_cross_entropy", "train_kl", "train_hidden")

    @known_arguments
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
        if temperature <= 0:
            raise ValueError(f"Distillation: temperature={temperature} must be above 0.")
        if chunk is not None and chunk < 1:
            raise ValueError(f"Distillation: chunk={chunk} must be 1 or more.")
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        self.hidden = hidden
        self.dtype = dtype
        self.device = device
        self.chunk = chunk

    def source(self, student: Student) -> Source:
        """Where the teacher comes from.

        Raises:
            FileNotFoundError: there is no model of that name.
            ValueError: none is named, and the student starts from random weights.
        """
        if self.teacher is not None:
            return Source(self.teacher, None, student.trust_remote_code, student.auto_class)
        if student.source is None:
            raise ValueError(
                f"Distillation(teacher=None) loads the dense model from {type(student).__name__}'s "
                "path once more, and this model is made from a config. Name a teacher."
            )
        return student.source

    def check(self, student: Student) -> None:
        """Refuse a teacher that does not fit, from its files alone, before anything is pruned.

        Raises:
            FileNotFoundError: there is no model of that name.
            ValueError: its device is not there, it is the pruned model itself, its head says
                something else (another vocabulary, say) or, where hidden states are compared, it
                has another hidden size or number of blocks.
        """
        source = self.source(student)
        if self.device is not None:
            _check_device(self.device)
        if student.head(student.base) is None:
            raise ValueError(
                "Distillation compares what the heads of two models say, and "
                f"{type(student).__name__} does not know that of {type(student.base).__name__}. "
                "Give it in a method `head` of the module."
            )
        if self.teacher is not None:
            name = f"the teacher {self.teacher!r}"
            student.check_teacher(name, source)
            if self.hidden:
                self._check_sizes(student, name, source)
        elif student.plans:
            raise ValueError(
                f"Distillation(teacher=None) takes the model of path={student.path!r} for its "
                "teacher, and that is pruned already. Name the dense model as the teacher."
            )

    def _check_sizes(self, student: Student, name: str, source: Source) -> None:
        """Refuse a teacher whose hidden states cannot be compared with the student's."""
        ours, theirs = student.base.config, source.config()
        blocks = ours.num_hidden_layers + len(student.plans.dropped)
        sizes = {
            "a hidden size of": (ours.hidden_size, theirs.hidden_size),
            "a number of blocks of": (blocks, theirs.num_hidden_layers),
        }
        for what, (our_size, their_size) in sizes.items():
            if our_size != their_size:
                raise ValueError(
                    f"hidden={self.hidden} compares hidden states block by block, and {name} has "
                    f"{what} {their_size}, the model {our_size} before pruning. Set hidden to 0."
                )

    def start(self, student: Student) -> Distiller:
        """Load the teacher, frozen and in evaluation mode, for a module that is ready to train.

        Raises:
            ValueError: the teacher would be the student itself.
        """
        if self.teacher is None and not student.plans:
            raise ValueError(
                f"Distillation(teacher=None) makes the model of path={student.path!r} its own "
                "teacher, and nothing has pruned it in this run. Name the dense model as the "
                "teacher, or a method under the trainer's callbacks."
            )
        teacher = self.source(student).model(self.dtype, student.attn_implementation)
        teacher.requires_grad_(False).eval()
        if self.device is not None:
            teacher.to(self.device)  # type: ignore[arg-type]
        else:
            student.place(teacher)
        return self.distiller(student, teacher, student.plans.dropped)

    def distiller(
        self, student: Student, teacher: PreTrainedModel, gone: Collection[int] = ()
    ) -> Distiller:
        """A teacher at work.

        Args:
            student: the module, ready to train.
            teacher: frozen, in evaluation mode, where it is to run.
            gone: blocks of the teacher that the student does not have.
        """
        return Distiller(
            student,
            teacher,
            weight=self.weight,
            temperature=self.temperature,
            hidden=self.hidden,
            device=torch.device(self.device) if self.device is not None else None,
            chunk=self.chunk,
            gone=gone,
        )


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"Distillation: device={name!r} cannot be used for the teacher: {reason}"
        ) from error
