"""A Hugging Face tokenizer as llama.cpp's: two kinds are known, and all others refused.

"gpt2" is byte-level BPE: text is cut by a regular expression, then merged. llama.cpp names the
expressions and has them built in; the tokenizer's own expression decides which name is right.
"llama" is SentencePiece's BPE with byte fallback: of all neighbours that make a token, those with
the highest score are merged first. Hugging Face stores merges in place of scores; a token's score
here is minus the place of its first merge, which gives the same order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

__all__ = ["add_tokenizer", "model_name", "pre_tokenizer", "scores_of"]

PHI3_STRIPS, PHI3_KEEPS = ("</s>",), ("<unk>", "<s>", "<|endoftext|>")
SPACE = "\u2581"  # SentencePiece's sign of a space

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_NAMES = {
    # expression, and whether whole words that are tokens are not merged → name
    (_CONTRACTIONS + _WORD + r"|\p{N}{1,3}" + _REST, True): "llama-bpe",
    (_CONTRACTIONS + _WORD + r"|\p{N}{1,3}" + _REST, False): "smaug-bpe",
    (_CONTRACTIONS + _WORD + r"|\p{N}" + _REST, False): "qwen2",
    (
        f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*"
        + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        True,
    ): "tekken",
}


def add_tokenizer(writer: GGUFWriter, tokenizer: Any, folder: Path, config: Any) -> list[str]:
    """Add the folder's tokenizer, if it has one, and its chat template.

    Returns:
        Notes for the user.

    Raises:
        ValueError: llama.cpp has no such tokenizer, or it has more tokens than the model.
    """
    if tokenizer is None:
        writer.add_tokenizer_model("none")
        return [f"{folder} has no tokenizer, so that the file takes and gives token ids only"]
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer in {folder} is Python code of its own, a "
            f"{type(tokenizer).__name__}, which llama.cpp does not have"
        )
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = _kind(raw, folder)
    tokens, types = _tokens(tokenizer, raw, config.vocab_size, folder)
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if kind == "gpt2":
        writer.add_tokenizer_pre(pre_tokenizer(raw, folder))
        writer.add_token_merges([" ".join(_pair(merge)) for merge in raw["model"]["merges"]])
    else:
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(scores_of(tokens, raw, folder))
        writer.add_add_space_prefix(_has_space_prefix(raw))
    _add_specials(writer, tokenizer, config, folder)
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        writer.add_chat_template(template)
    return [*_notes(tokenizer, raw, kind)]


def model_name(folder: Path, tokenizer: Any) -> str:
    """The folder's name, as llama.cpp may read it.

    Of a name with "phi-3" or "phi3" in it llama.cpp believes that special tokens take the spaces
    behind them away, all but three of them, and of any other name that none does. It stops where
    such a model lacks a token that Phi-3 has.
    """
    name = folder.resolve().name
    if _strips_as_phi3(tokenizer):
        return name if re.search("phi-?3", name, re.IGNORECASE) else f"{name} (phi-3)"
    return re.sub("(phi)-?(3)", r"\1 \2", name, flags=re.IGNORECASE)


def _strips_as_phi3(tokenizer: Any) -> bool:
    added = [] if tokenizer is None else [*tokenizer.added_tokens_decoder.values()]
    return {token.content for token in added} >= {*PHI3_STRIPS, *PHI3_KEEPS} and all(
        token.rstrip == (token.content not in PHI3_KEEPS) and not token.lstrip for token in added
    )


def _notes(tokenizer: Any, raw: dict[str, Any], kind: str) -> Iterator[str]:
    """What llama.cpp does in another way."""
    if "NFC" in [step["type"] for step in _steps(raw.get("normalizer"))]:
        yield "llama.cpp does not bring text into Unicode's form NFC, as the tokenizer does"
    known = _strips_as_phi3(tokenizer)
    other = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if ((token.lstrip or token.rstrip) and not known)
        or token.single_word
        or (kind == "llama" and token.normalized and not token.special)
    ]
    if other:
        yield (
            f"{len(other)} added tokens, such as {other[0]}, take spaces away or ask for them "
            "around, which llama.cpp does not do: around them in a text, its token ids differ"
        )


def _kind(raw: dict[str, Any], folder: Path) -> str:
    model = raw["model"]
    before = [step["type"] for step in _steps(raw.get("normalizer"))]
    steps = [step["type"] for step in _steps(raw.get("pre_tokenizer"))]
    if model.get("type") == "BPE":
        if "ByteLevel" in steps and before in ([], ["NFC"]):
            return "gpt2"
        words = {step["type"] for step in _steps(raw.get("pre_tokenizer")) if _cuts_words(step)}
        if model.get("byte_fallback") and {*before} <= {"Prepend", "Replace"} and not words:
            return "llama"
    raise ValueError(
        f"the tokenizer in {folder} is neither byte-level BPE nor SentencePiece's BPE with byte "
        f"fallback, but {' → '.join([*before, *steps, str(model.get('type'))])}. llama.cpp would "
        "cut text in another way, so no file is written."
    )


def _cuts_words(step: dict[str, Any]) -> bool:
    """Whether a step cuts text that has no spaces left, or cuts at SentencePiece's spaces."""
    if step["type"] == "Metaspace":
        return bool(step.get("split", True))
    return not (step["type"] == "Split" and step["pattern"] == {"String": " "})


def pre_tokenizer(raw: dict[str, Any], folder: Path) -> str:
    """llama.cpp's name of how a byte-level tokenizer cuts text.

    Raises:
        ValueError: the way is not known.
    """
    steps = _steps(raw.get("pre_tokenizer"))
    types = [step["type"] for step in steps]
    whole = bool(raw["model"].get("ignore_merges"))
    last = steps[-1]
    if not last.get("add_prefix_space") and not whole and last.get("use_regex", True):
        if types == ["ByteLevel"]:
            return "gpt-2"
        if types == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
            return "smollm"
    if types == ["Split", "ByteLevel"] and not last.get("add_prefix_space"):
        expression = steps[0]["pattern"].get("Regex")
        isolated = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
        if isolated and not last.get("use_regex", True) and (expression, whole) in _NAMES:
            return _NAMES[expression, whole]
    raise ValueError(
        f"the tokenizer in {folder} cuts text in a way that is not known here by llama.cpp's name: "
        f"{json.dumps(raw.get('pre_tokenizer'), ensure_ascii=False)[:200]}. Known are gpt-2, "
        f"smollm, {', '.join(_NAMES.values())}. A wrong one would give other tokens without a "
        "word, so no file is written."
    )


def scores_of(tokens: list[str], raw: dict[str, Any], folder: Path) -> list[float]:
    """The score of each token: minus the place of the first merge that makes it.

    llama.cpp merges all neighbours that make a token; Hugging Face those in its list.

    Raises:
        ValueError: the list lacks some, so that the two would cut text differently.
    """
    merges = [_pair(merge) for merge in raw["model"]["merges"]]
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        rank.setdefault(left + right, place)
    known, listed = set(raw["model"]["vocab"]), set(merges)
    for token in known - {token["content"] for token in raw["added_tokens"]}:
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if pair not in listed and known.issuperset(pair):
                raise ValueError(
                    f"the tokenizer in {folder} has {token!r}, and does not merge it from {pair}, "
                    "as llama.cpp would: text would be cut differently, so no file is written"
                )
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _tokens(
    tokenizer: Any, raw: dict[str, Any], size: int, folder: Path
) -> tuple[list[str], list[TokenType]]:
    """Text and type of every row of the embedding."""
    vocabulary = {index: token for token, index in tokenizer.get_vocab().items()}
    if max(vocabulary) >= size:
        raise ValueError(
            f"the tokenizer in {folder} has tokens up to number {max(vocabulary)}, and the model "
            f"embeds {size}. They do not belong together."
        )
    added = {index: token.special for index, token in tokenizer.added_tokens_decoder.items()}
    known, tokens, types = set(vocabulary.values()), [], []
    for index in range(size):
        token = vocabulary.get(index)
        if token is None:
            type_ = TokenType.UNUSED
        elif token == raw["model"].get("unk_token"):
            type_ = TokenType.UNKNOWN
        elif index in added:
            type_ = TokenType.CONTROL if added[index] else TokenType.USER_DEFINED
        elif raw["model"].get("byte_fallback") and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            type_ = TokenType.BYTE
        else:
            type_ = TokenType.NORMAL
        if token is None:
            token = f"[PAD{index}]"
            while token in known:
                token += "'"
        tokens.append(token)
        types.append(type_)
    return tokens, types


def _add_specials(writer: GGUFWriter, tokenizer: Any, config: Any, folder: Path) -> None:
    """Special tokens, and which of them a text begins and ends with."""
    for name in ("bos", "eos", "unk", "pad"):
        index = getattr(tokenizer, f"{name}_token_id", None)
        if index is None and name != "unk":
            index = getattr(config, f"{name}_token_id", None)
        if isinstance(index, int):
            getattr(writer, f"add_{name}_token_id")(index)
    plain = tokenizer("a", add_special_tokens=False).input_ids
    whole = tokenizer("a").input_ids
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    before, after = whole[:at], whole[at + len(plain) :]
    if before not in ([], [tokenizer.bos_token_id]) or after not in ([], [tokenizer.eos_token_id]):
        raise ValueError(
            f"the tokenizer in {folder} puts {tokenizer.convert_ids_to_tokens(before)} before a "
            f"text and {tokenizer.convert_ids_to_tokens(after)} behind it; llama.cpp can put its "
            "bos token and its eos token there, and nothing else"
        )
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))


def _has_space_prefix(raw: dict[str, Any]) -> bool:
    steps = [*_steps(raw.get("normalizer")), *_steps(raw.get("pre_tokenizer"))]
    return any(
        step["type"] == "Prepend"
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as a list."""
    if part is None:
        return []
    return part.get("pretokenizers") or part.get("normalizers") or [part]


def _pair(merge: str | list[str]) -> tuple[str, ...]:
    """The two sides of a merge; old files have them in one string."""
    return tuple(merge.split(" ") if isinstance(merge, str) else merge)
