"""What was found out about one model, as values that are written to and read from JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Answer", "Evaluation", "ForwardSpeed", "Size", "Speed", "TaskScore", "TextPerplexity"]


@dataclass(frozen=True)
class TextPerplexity:
    """Perplexity on one text, cut into windows of one length."""

    text: str
    """Name of the text, or its file or folder."""
    split: str
    """Or what else of the text it is: "whole", or a share."""
    length: int
    """Tokens in a window; the number means nothing without it."""
    windows: int
    """Windows that the perplexity is over."""
    perplexity: float
    tokens: str = ""
    """A short hash of the windows' token ids; empty if it is not known."""
    begin: str = ""
    """What each window begins with, such as "<bos>"; empty: a token of the text."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task."""

    task: str
    metric: str
    value: float
    stderr: float | None
    """Standard error of the mean over the examples; None where there is none."""
    examples: int
    few_shot: int
    """Solved examples in front of each question."""
    higher_is_better: bool = True
    in_group: bool = False
    """Whether a group of tasks that was scored too has it in it."""


@dataclass(frozen=True)
class Answer:
    """How a model goes on after a prompt."""

    prompt: str
    text: str
    unique: float
    """Different tokens over tokens: 1 says nothing twice; 0 is no token at all."""


@dataclass(frozen=True)
class Speed:
    """Generation with a KV cache, on one device; times are medians."""

    batch_size: int
    prompt: int
    """Tokens of each prompt."""
    prefill_seconds: float
    """For the prompts of a batch, until the first new tokens."""
    decode_seconds: float
    """For one new token of every sequence of the batch."""
    peak_bytes: int | None
    """On a GPU the peak of what was allocated on it; elsewhere of the whole process."""

    @property
    def prefill_tokens_per_second(self) -> float:
        """Tokens of prompts, of the whole batch."""
        return self.batch_size * self.prompt / self.prefill_seconds

    @property
    def decode_tokens_per_second(self) -> float:
        """New tokens, of the whole batch."""
        return self.batch_size / self.decode_seconds


@dataclass(frozen=True)
class ForwardSpeed:
    """A forward pass over a batch of images, on one device; times are medians."""

    batch_size: int
    seconds: float
    """For the batch."""
    peak_bytes: int | None
    """As of `Speed`."""

    @property
    def images_per_second(self) -> float:
        """Of the whole batch."""
        return self.batch_size / self.seconds


@dataclass(frozen=True)
class Size:
    """Parameters and bytes of a model, on the disk and in memory."""

    parameters: int
    """Entries of all parameter tensors, zeros included."""
    nonzero: int
    """Entries that are not zero."""
    bytes: int
    """Of the parameters in memory."""
    disk: int | None = None
    """Bytes of the files with weights; None where there is no folder."""

    @property
    def zeros(self) -> float:
        """Fraction of zeros, in [0, 1]."""
        return 1 - self.nonzero / max(self.parameters, 1)


@dataclass
class Evaluation:
    """Everything that was found out about one model; what was not asked for is empty."""

    perplexities: list[TextPerplexity] = field(default_factory=list)
    tasks: list[TaskScore] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)
    size: Size | None = None
    unread: float | None = None
    """Share of the weights of Linears with thresholds that nothing was multiplied by, as their
    inputs counted as zero; None: no activations were cut."""
    forwards: list[ForwardSpeed] = field(default_factory=list)

    @property
    def mean_accuracy(self) -> TaskScore | None:
        """The mean of `acc` over the tasks that have one, as pruning papers give it.

        Its standard error takes the tasks as independent. A group of tasks counts as one, and not
        its members. None for fewer than two tasks.
        """
        accuracies = [task for task in self.tasks if task.metric == "acc" and not task.in_group]
        if len(accuracies) < 2:
            return None
        errors = [task.stderr for task in accuracies if task.stderr is not None]
        whole = len(errors) == len(accuracies)
        return TaskScore(
            task=f"mean of {len(accuracies)}",
            metric="acc",
            value=sum(task.value for task in accuracies) / len(accuracies),
            stderr=math.hypot(*errors) / len(accuracies) if whole else None,
            examples=sum(task.examples for task in accuracies),
            few_shot=max(task.few_shot for task in accuracies),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it, except for infinite numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Evaluation:
        """What `to_dict` gave; numbers may be strings, as JSON has no infinity.

        Raises:
            TypeError: it is something else.
        """
        kinds: dict[str, Any] = {
            "perplexities": TextPerplexity,
            "tasks": TaskScore,
            "answers": Answer,
            "speeds": Speed,
            "forwards": ForwardSpeed,
        }
        size = value.get("size")
        lists = {name: value.get(name, ()) for name in kinds}
        return cls(
            size=None if size is None else Size(**size),
            unread=value.get("unread"),
            **{n: [kinds[n](**_numbers(item)) for item in items] for n, items in lists.items()},
        )


def _numbers(item: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("perplexity", "value", "stderr")
    return {k: float(v) if k in wanted and isinstance(v, str) else v for k, v in item.items()}
