"""What models say, and how fast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.evaluation import continuation, generation_speed, unique_share
from lightning_prune.models.loading import Source
from lightning_prune.surgery import shrink
from tests.sweep.helpers import traces
from tests.tiny import MODEL_TYPES, tiny_model, uneven_plan

CPU = torch.device("cpu")


def test_the_share_of_unique_tokens_is_that_of_different_ones() -> None:
    """Nothing at all counts as 0."""
    assert unique_share(torch.tensor([3, 3, 3, 5])) == 0.5
    assert unique_share(torch.tensor([1, 2])) == 1
    assert unique_share(torch.tensor([])) == 0


def test_a_text_and_its_tokens_go_on_alike(model_folder: Path) -> None:
    """As the tokenizer cuts the text."""
    source = Source(str(model_folder))
    model, tokenizer = source.model("auto", None), source.tokenizer()
    assert tokenizer is not None
    ids_T = tokenizer("The assert", return_tensors="pt").input_ids[0]
    by_text, by_tokens = (
        continuation(model, tokenizer, prompt, CPU, 8) for prompt in ("The assert", ids_T)
    )
    assert by_text == by_tokens
    assert by_text is not None
    assert 0 < by_text.unique <= 1
    with pytest.raises(ValueError, match="no token"):
        continuation(model, tokenizer, "", CPU)


@pytest.mark.parametrize("listed", [False, True])
def test_a_model_that_ends_at_once_says_nothing(model_folder: Path, listed: bool) -> None:
    """The token that ends a text is not counted, whether the config lists one or several."""
    source = Source(str(model_folder))
    model, tokenizer = source.model("auto", None), source.tokenizer()
    assert tokenizer is not None
    ids_T = tokenizer("The assert", return_tensors="pt").input_ids
    with torch.no_grad():
        first, second = model.generate(ids_T, max_new_tokens=2, do_sample=False)[0, -2:].tolist()
    model.generation_config.eos_token_id = [first, second + 1] if listed else first
    said = continuation(model, tokenizer, "The assert", CPU, 8)
    assert said is not None
    assert (said.text, said.unique) == ("", 0)


def test_the_likeliest_token_is_taken_whatever_the_model_s_own_settings_say(
    model_folder: Path,
) -> None:
    """A penalty for repetition would hide it. The settings are there afterwards."""
    source = Source(str(model_folder))
    model, tokenizer = source.model("auto", None), source.tokenizer()
    assert tokenizer is not None
    plain = continuation(model, tokenizer, "The assert", CPU, 16)
    own = model.generation_config
    own.update(repetition_penalty=50.0, no_repeat_ngram_size=1, temperature=0.7, do_sample=True)
    assert continuation(model, tokenizer, "The assert", CPU, 16) == plain
    assert model.generation_config is own


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_generation_is_timed_for_every_family(model_type: str) -> None:
    """Times are positive, and the model is left as it was."""
    model = tiny_model(model_type).train()
    before = traces(model)
    speed = generation_speed(model, batch_size=2, prompt=8, new_tokens=3, runs=2)
    assert speed.prefill_seconds > 0
    assert speed.decode_seconds > 0
    assert speed.peak_bytes is not None
    assert speed.peak_bytes > 0
    assert traces(model) == before


def test_an_uneven_model_is_timed() -> None:
    """With its KV cache of uneven blocks."""
    model = tiny_model("llama")
    shrink(Anatomy(model), uneven_plan(model))
    assert generation_speed(model, prompt=8, new_tokens=3, runs=1).decode_seconds > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"prompt": 60, "new_tokens": 8}, "are 68 tokens, and the model can take 64"),
    ],
)
def test_what_cannot_be_timed_is_refused(arguments: dict[str, int], message: str) -> None:
    """Before anything runs."""
    with pytest.raises(ValueError, match=message):
        generation_speed(tiny_model("llama"), **arguments)
