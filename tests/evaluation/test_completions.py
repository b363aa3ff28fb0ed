"""How models go on after many prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.evaluation import Sampling, completions, continuation
from lightning_prune.models.loading import Source
from tests.tiny import MODEL_TYPES, tiny_model

CPU = torch.device("cpu")
PROMPTS = ["The assert statement", "An", "Names in a class body", "The same"]


@pytest.fixture
def loaded(model_folder: Path) -> tuple[Any, Any]:
    source = Source(str(model_folder))
    return source.model("auto", None), source.tokenizer()


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Any:
    return Source(str(model_folder)).tokenizer()


def test_the_likeliest_tokens_of_a_batch_are_those_of_each_prompt_alone(
    loaded: tuple[Any, Any],
) -> None:
    """Whatever stands beside it, and however much padding; in the order of the prompts."""
    model, tokenizer = loaded
    greedy = Sampling(temperature=0, new_tokens=8, batch_size=3)
    together = completions(model, tokenizer, PROMPTS, greedy)
    assert together == [continuation(model, tokenizer, p, CPU, 8) for p in PROMPTS]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_padding_changes_nothing_in_any_family(model_type: str, tokenizer: Any) -> None:
    """Positions are counted from the first token that is none."""
    model = tiny_model(model_type, vocab_size=300)
    greedy = Sampling(temperature=0, new_tokens=6)
    alone = [completions(model, tokenizer, [prompt], greedy)[0] for prompt in PROMPTS]
    assert completions(model, tokenizer, PROMPTS, greedy) == alone


def test_what_is_drawn_depends_on_the_seed_alone(loaded: tuple[Any, Any]) -> None:
    """Not on what was drawn before, whose state is left as it was."""
    model, tokenizer = loaded
    sampling = Sampling(temperature=1.5, top_p=1, new_tokens=12)
    torch.manual_seed(5)
    first = completions(model, tokenizer, PROMPTS, sampling)
    drawn = torch.rand(3)
    again = completions(model, tokenizer, PROMPTS, sampling)
    other = completions(
        model, tokenizer, PROMPTS, Sampling(temperature=1.5, top_p=1, new_tokens=12, seed=1)
    )
    assert first == again != other
    torch.manual_seed(5)
    torch.testing.assert_close(torch.rand(3), drawn, rtol=0, atol=0)


def test_a_small_share_leaves_the_likeliest_token_alone(loaded: tuple[Any, Any]) -> None:
    """However warm it is drawn."""
    model, tokenizer = loaded
    narrow = Sampling(temperature=1.5, top_p=1e-6, new_tokens=8)
    greedy = Sampling(temperature=0, new_tokens=8)
    drawn = completions(model, tokenizer, PROMPTS, narrow)
    assert drawn == completions(model, tokenizer, PROMPTS, greedy)


def test_a_model_s_own_settings_are_left_out_and_left_alone(loaded: tuple[Any, Any]) -> None:
    """They are there afterwards, and so are the modes of the modules."""
    model, tokenizer = loaded
    greedy = Sampling(temperature=0, new_tokens=12)
    plain = completions(model, tokenizer, PROMPTS, greedy)
    model.generation_config.repetition_penalty = 5.0
    model.train()
    assert completions(model, tokenizer, PROMPTS, greedy) == plain
    assert model.generation_config.repetition_penalty == 5.0
    assert all(module.training for module in model.modules())


def test_a_completion_ends_before_the_token_that_ends_a_text(loaded: tuple[Any, Any]) -> None:
    """Those beside it go on; the padding behind it is no part of it."""
    model, tokenizer = loaded
    greedy = Sampling(temperature=0, new_tokens=8)
    ids_T = tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        said = model.generate(ids_T, max_new_tokens=8, do_sample=False)[0, ids_T.shape[1] :]
    model.generation_config.eos_token_id = end = int(said[2])
    cut = said[: said.tolist().index(end)]
    first, *others = completions(model, tokenizer, PROMPTS, greedy)
    assert first.text == tokenizer.decode(cut, skip_special_tokens=True)
    assert first.unique == len(cut.unique()) / max(len(cut), 1)
    assert any(len(answer.text) > len(first.text) for answer in others)


def test_progress_is_counted_in_batches(
    loaded: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """On the standard error stream, if it is asked for."""
    model, tokenizer = loaded
    short = Sampling(new_tokens=1, batch_size=3)
    completions(model, tokenizer, PROMPTS, short)
    assert capsys.readouterr().err == ""
    completions(model, tokenizer, PROMPTS, short, progress="completions")
    assert "completions: 2/2 batches in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompts", "new_tokens", "message"),
    [
        ([], 1, "there are no prompts to go on from"),
        (["The", ""], 1, "prompt 2 of 2 has no token"),
        (["The", "a " * 40], 30, "with 30 new tokens these are .* the model can take 64"),
    ],
)
def test_prompts_that_cannot_be_gone_on_from_are_refused(
    prompts: list[str], new_tokens: int, message: str, loaded: tuple[Any, Any]
) -> None:
    """Before the first is run."""
    model, tokenizer = loaded
    model.generate = None
    with pytest.raises(ValueError, match=message):
        completions(model, tokenizer, prompts, Sampling(new_tokens=new_tokens))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1}, "temperature=-1 is not allowed; it is 0 .* or more"),
        ({"temperature": float("inf")}, "temperature=inf is not allowed"),
        ({"top_p": 0}, r"top_p=0 is not allowed; it is in \(0, 1\]"),
        ({"new_tokens": 0}, "new_tokens=0 is not allowed; it is 1 or more"),
        ({"batch_size": 0}, "batch_size=0 is not allowed; it is 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    """When they are made."""
    with pytest.raises(ValueError, match=f"Sampling: {message}"):
        Sampling(**arguments)  # type: ignore[arg-type]
