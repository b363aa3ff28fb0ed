"""Small tokenizers that cut text in every way that has a name in llama.cpp."""

from __future__ import annotations

import json
import random
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lightning_prune.export.gguf.tokenizer import _NAMES

SIZE = 700
TEXTS = [
    "Hello world, it's 2024 and I'VE 12345 things; they'll see.",
    "  leading  and   many spaces \n\n new\tline\r\n end  ",
    "привет мир 你好世界 日本語 Ünïcödé",
    "CamelCaseWords HTTPServer http://a.b/c?d=e&f=1 x=3.14e-10 {foo: [bar]} ---",
    "emoji 😀😀 and <|end|> special <|end|>",
    "a",
]
WAYS = {"gpt-2": (None, False), "smollm": (None, False)} | {
    name: (expression, whole) for (expression, whole), name in _NAMES.items()
}


def steps_of(name: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer that llama.cpp has under a name."""
    expression, _ = WAYS[name]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=expression is None)
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    if expression is None:
        return level
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), level])


@cache
def byte_level(name: str, begins: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, trained on a little text of every script."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=WAYS[name][1]))
    tokenizer.pre_tokenizer, tokenizer.decoder = steps_of(name), decoders.ByteLevel()
    words = " ".join(TEXTS).split(" ")
    generator = random.Random(0)
    text = [" ".join(generator.choices(words, k=50)) for _ in range(100)] + TEXTS
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A",
            pair="<|begin|> $A <|begin|> $B",
            special_tokens=[("<|begin|>", 0)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>"
    )


def changed(tokenizer: PreTrainedTokenizerFast, **parts: object) -> PreTrainedTokenizerFast:
    """The same tokenizer with parts of its JSON in place of its own ("model.merges")."""
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    for path, value in parts.items():
        *outer, last = path.split("__")
        place = raw
        for key in outer:
            place = place[key]
        place[last] = value
    made = Tokenizer.from_str(json.dumps(raw))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token
    )


def sentencepiece(prefix: bool = True) -> PreTrainedTokenizerFast:
    """BPE with byte fallback as Hugging Face writes Llama 2's: spaces are signs in the text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [
        ("h", "e"), ("l", "l"), ("\u2581", "w"), ("o", "r"), ("he", "ll"), ("\u2581w", "or"),
        ("l", "d"), ("hell", "o"), ("\u2581wor", "ld"), ("\u2581", "\u2581"),
    ]  # fmt: skip
    letters = [*dict.fromkeys(letter for merge in merges for part in merge for letter in part)]
    vocabulary = [*pieces, *(a + b for a, b in merges), *letters]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(vocabulary)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    first = [{"type": "Prepend", "prepend": "\u2581"}] if prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    raw = json.loads(tokenizer.to_str())
    raw["normalizer"] = {"type": "Sequence", "normalizers": [*first, replace]}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    return made
