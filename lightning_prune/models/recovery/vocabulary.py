"""Whether a student and its teacher speak of the same tokens."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

__all__ = ["check_vocabulary"]


def check_vocabulary(
    name: str,
    config: PreTrainedConfig,
    teacher_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    teacher_tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Refuse a teacher whose logits are about other tokens than the student's.

    Args:
        name: what the message calls the teacher.
        config: of the student.
        teacher_config: of the teacher.
        tokenizer: of the student; where one of the two has none, only their number is compared.
        teacher_tokenizer: of the teacher.

    Raises:
        ValueError: it has another number of tokens, or some that stand for something else.
    """
    if config.vocab_size != teacher_config.vocab_size:
        raise ValueError(
            f"{name} has a vocabulary of {teacher_config.vocab_size} tokens, and the model one of "
            f"{config.vocab_size}. Logits can be compared within one vocabulary only: take a "
            "teacher of the same family."
        )
    if tokenizer is None or teacher_tokenizer is None:
        return
    numbers = teacher_tokenizer.get_vocab()
    different = sum(numbers.get(token) != id_ for token, id_ in tokenizer.get_vocab().items())
    if different:
        raise ValueError(
            f"{name} has as many tokens as the model, but {different} of them stand for "
            "something else. Take a teacher with the same tokenizer."
        )
