"""Tokenizers in GGUF files: what is written of them, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")

from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from lightning_prune.export.gguf import to_gguf
from lightning_prune.export.hf import save
from tests.export.gguf_forward import File
from tests.export.gguf_tokenizers import SIZE, TEXTS, WAYS, byte_level, changed, sentencepiece
from tests.tiny import tiny_model

CONTROL, UNKNOWN, UNUSED, BYTE, NORMAL = 3, 2, 5, 6, 1


def fields(tokenizer: Any, tmp_path: Path, size: int = SIZE + 20) -> dict[str, Any]:
    """What a file says of a tokenizer, without the prefix."""
    model = tiny_model("llama", vocab_size=size, num_hidden_layers=1)
    folder = save(model, tmp_path / "model", tokenizer=tokenizer)
    found = File(to_gguf(folder, tmp_path / "model.gguf").path).fields
    return {name.removeprefix("tokenizer."): value for name, value in found.items()}


@pytest.mark.parametrize("name", WAYS)
def test_a_known_way_of_cutting_text_gets_llama_cpps_name(name: str, tmp_path: Path) -> None:
    """The name decides which expression llama.cpp uses."""
    found = fields(byte_level(name), tmp_path)
    assert (found["ggml.model"], found["ggml.pre"]) == ("gpt2", name)


def test_tokens_merges_and_special_tokens_are_in_the_file(tmp_path: Path) -> None:
    """Every row of the embedding has a token, used or not."""
    tokenizer = byte_level("gpt-2")
    found = fields(tokenizer, tmp_path)
    tokens, types = found["ggml.tokens"], found["ggml.token_type"]
    assert len(tokens) == len(types) == SIZE + 20
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert types[:3] == [CONTROL, CONTROL, NORMAL]
    assert set(types[len(tokenizer) :]) == {UNUSED}
    assert found["ggml.bos_token_id"] == 0
    assert found["ggml.eos_token_id"] == 1
    assert all(merge.count(" ") == 1 for merge in found["ggml.merges"])
    assert not found["ggml.add_bos_token"]


def test_whether_a_text_begins_with_bos_is_the_tokenizers_affair(tmp_path: Path) -> None:
    """llama.cpp has an opinion of its own for some names."""
    found = fields(byte_level("llama-bpe", begins=True), tmp_path)
    assert found["ggml.add_bos_token"]
    assert not found["ggml.add_eos_token"]
    assert not fields(byte_level("llama-bpe"), tmp_path)["ggml.add_bos_token"]


def test_the_chat_template_goes_along(tmp_path: Path) -> None:
    """Programs that chat read it from the file."""
    tokenizer = changed(byte_level("gpt-2"))
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert fields(tokenizer, tmp_path)["chat_template"] == "{{ messages[0]['content'] }}"


def test_no_tokenizer_is_said(tmp_path: Path) -> None:
    """The file can be used with token ids."""
    folder = save(tiny_model("llama"), tmp_path / "model")
    made = to_gguf(folder, tmp_path / "model.gguf")
    assert "has no tokenizer" in made.notes[-1]
    assert File(made.path).fields["tokenizer.ggml.model"] == "none"


# --- SentencePiece ---


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_has_scores_bytes_and_a_space_in_front(prefix: bool, tmp_path: Path) -> None:
    """Earlier merges have higher scores."""
    found = fields(sentencepiece(prefix), tmp_path)
    assert found["ggml.model"] == "llama"
    assert found["ggml.add_space_prefix"] is prefix
    tokens, scores = found["ggml.tokens"], found["ggml.scores"]
    order = ["he", "ll", "\u2581w", "or", "hell", "\u2581wor", "ld", "hello", "\u2581world"]
    got = [scores[tokens.index(token)] for token in order]
    assert got == sorted(got, reverse=True)
    assert len(set(got)) == len(got)
    types = found["ggml.token_type"]
    assert [types[tokens.index(t)] for t in ("<unk>", "<s>", "<0x0A>", "he", "[PAD300]")] == [
        UNKNOWN,
        CONTROL,
        BYTE,
        NORMAL,
        UNUSED,
    ]


def merged_by_score(text: str, found: dict[str, Any]) -> list[int]:
    """llama.cpp's way: the two neighbours whose union has the highest score, leftmost first."""
    tokens = {token: index for index, token in enumerate(found["ggml.tokens"])}
    parts = list(text.replace(" ", "\u2581"))
    while True:
        pairs = [
            (-found["ggml.scores"][tokens[a + b]], i)
            for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False))
            if a + b in tokens
        ]
        if not pairs:
            break
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids = []
    for part in parts:
        known = part in tokens
        ids += [tokens[part]] if known else [tokens[f"<0x{b:02X}>"] for b in part.encode()]
    return ids


def test_scores_cut_text_as_the_merges_do(tmp_path: Path) -> None:
    """By llama.cpp's algorithm, slowly."""
    tokenizer = sentencepiece(prefix=False)
    found = fields(tokenizer, tmp_path)
    for text in ["hello world", "  world wor hell", "helloworld he  llo", *TEXTS]:
        expected = tokenizer(text, add_special_tokens=False).input_ids
        assert merged_by_score(text, found) == expected, text


# --- refused ---


def test_merges_that_llama_cpp_would_add_are_refused(tmp_path: Path) -> None:
    """It merges all neighbours that make a token, not only those of the list."""
    tokenizer = sentencepiece()
    merges = [["h", "e"], ["l", "l"], ["\u2581", "w"], ["o", "r"], ["he", "ll"]]
    with pytest.raises(ValueError, match="does not merge it from .*as llama.cpp would"):
        fields(changed(tokenizer, model__merges=merges), tmp_path)


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": LEVEL | {"add_prefix_space": True}},
        {"model__ignore_merges": True},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [SPLIT, LEVEL | {"use_regex": False}],
            }
        },
    ],
    ids=["prefix", "whole words", "expression"],
)
def test_an_unknown_way_of_cutting_text_is_refused(parts: Any, tmp_path: Path) -> None:
    """A wrong name would give other tokens without a word."""
    with pytest.raises(ValueError, match=r"not known here by llama\.cpp's name.*Known are gpt-2"):
        fields(changed(byte_level("gpt-2"), **parts), tmp_path)


def test_text_that_is_changed_before_it_is_cut_is_refused(tmp_path: Path) -> None:
    """llama.cpp would not change it; the form NFC alone is let pass, and said."""
    with pytest.raises(ValueError, match="Lowercase → ByteLevel → BPE"):
        fields(changed(byte_level("gpt-2"), normalizer={"type": "Lowercase"}), tmp_path)
    fields(changed(byte_level("gpt-2"), normalizer={"type": "NFC"}), tmp_path)
    notes = to_gguf(tmp_path / "model", tmp_path / "model.gguf").notes
    assert "NFC" in notes[-1]


def test_other_kinds_of_tokenizers_are_refused(tmp_path: Path) -> None:
    """Words, unigrams and the like."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(ValueError, match="neither byte-level BPE nor SentencePiece"):
        fields(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a"), tmp_path)


def test_more_tokens_than_embeddings_are_refused(tmp_path: Path) -> None:
    """A tokenizer of another model."""
    with pytest.raises(ValueError, match="They do not belong together"):
        fields(byte_level("gpt-2"), tmp_path, size=300)


def test_special_tokens_that_llama_cpp_cannot_put_are_refused(tmp_path: Path) -> None:
    """It knows bos in front and eos behind."""
    end = {"SpecialToken": {"id": "<|end|>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    odd = {
        "type": "TemplateProcessing",
        "single": [end, first],
        "pair": [first, second],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [1], "tokens": ["<|end|>"]}},
    }
    with pytest.raises(ValueError, match=r"puts \['<\|end\|>'\] before a text"):
        fields(changed(byte_level("gpt-2"), post_processor=odd), tmp_path)


def strips(tokenizer: Any, *names: str) -> Any:
    """The tokenizer with special tokens that take the spaces behind them away."""
    tokens = [AddedToken(name, rstrip=True, special=True) for name in names]
    tokenizer.add_tokens(tokens, special_tokens=True)
    return tokenizer


def test_phi3s_tokens_are_said_to_be_such_by_the_models_name(tmp_path: Path) -> None:
    """By which llama.cpp knows that they take spaces away."""
    tokenizer = strips(sentencepiece(), "</s>", "<|user|>", "<|end|>")
    tokenizer.add_tokens(["<|endoftext|>"], special_tokens=True)
    model = tiny_model("llama", vocab_size=SIZE, num_hidden_layers=1)
    folder = save(model, tmp_path / "mine", tokenizer=tokenizer)
    made = to_gguf(folder, tmp_path / "model.gguf")
    assert File(made.path).fields["general.name"] == "mine (phi-3)"
    assert not [note for note in made.notes if "take spaces away" in note]


def test_a_name_that_llama_cpp_would_misread_is_written_otherwise(tmp_path: Path) -> None:
    """It stops at a "phi-3" whose tokenizer is not Phi-3's."""
    folder = save(tiny_model("llama", vocab_size=SIZE), tmp_path / "Phi-3-mine", tokenizer=None)
    made = to_gguf(folder, tmp_path / "model.gguf")
    assert File(made.path).fields["general.name"] == "Phi 3-mine"


def test_other_tokens_that_take_spaces_away_are_noted(tmp_path: Path) -> None:
    """llama.cpp leaves the spaces."""
    tokenizer = strips(byte_level("gpt-2"), "<|user|>")
    model = tiny_model("llama", vocab_size=SIZE + 1, num_hidden_layers=1)
    made = to_gguf(save(model, tmp_path / "mine", tokenizer=tokenizer), tmp_path / "model.gguf")
    assert File(made.path).fields["general.name"] == "mine"
    assert [note for note in made.notes if "such as <|user|>, take spaces away" in note]


def test_names_of_unused_rows_are_of_no_token(tmp_path: Path) -> None:
    """Two rows of one name stop llama.cpp."""
    tokenizer = byte_level("gpt-2")
    tokenizer.add_tokens([f"[PAD{SIZE + 3}]"])
    tokens = fields(tokenizer, tmp_path, SIZE + 6)["ggml.tokens"]
    assert len(set(tokens)) == SIZE + 6
