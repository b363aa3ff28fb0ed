"""GGUF files in llama.cpp itself: the same tokens, the same text, the same logits but for rounding.

llama.cpp keeps keys and values in float16, so that logits differ by about 0.01 from ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")

from transformers import AutoTokenizer

from lightning_prune import FLAP, Bias, GlobalStandardised, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.load import load
from lightning_prune.export.gguf import to_gguf
from lightning_prune.export.hf import save
from lightning_prune.models.loading import Source
from tests.export.gguf_cases import CASES
from tests.export.gguf_tokenizers import TEXTS, WAYS, byte_level, sentencepiece
from tests.tiny import tiny_batch, tiny_model

RUNTIME = Path(__file__).with_name("runtime.py")
PYTHON = os.environ.get("LIGHTNING_PRUNE_PYTHON_LLAMACPP") or (
    sys.executable if find_spec("llama_cpp") else None
)
QUICKSTART = ("f32", "f16", "bf16", "q8_0")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PYTHON is None,
        reason="needs llama-cpp-python: install it, or set LIGHTNING_PRUNE_PYTHON_LLAMACPP to an "
        "interpreter that has it",
    ),
]


class Runtime:
    """A folder of files for llama.cpp, and what it made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: dict[str, Any] = {"ids": {}, "texts": {}, "prompt": 5, "new": 48}

    def add(self, name: str, saved: Path, ids: torch.Tensor, **arguments: Any) -> None:
        to_gguf(saved, self.folder / f"{name}.gguf", **arguments)
        self.asked["ids"][name] = ids.tolist()

    def run(self) -> None:
        assert PYTHON is not None
        (self.folder / "asked.json").write_text(json.dumps(self.asked), encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [PYTHON, str(RUNTIME)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def logits(self, name: str) -> torch.Tensor:
        return torch.tensor(np.load(self.folder / f"{name}.logits.npy"))

    def greedy(self, name: str) -> list[int]:
        return list(np.load(self.folder / f"{name}.greedy.npy"))

    def tokens(self, name: str) -> list[list[int]]:
        text = (self.folder / f"{name}.tokens.json").read_text(encoding="utf-8")
        found: list[list[int]] = json.loads(text)
        return found


def expected(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(ids[None]).logits[0]
    return logits


# --- small random models ---


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("cases")
    runtime, models = Runtime(folder), {name: case.model() for name, case in CASES.items()}
    runtime.asked["new"] = 1
    for name, model in models.items():
        runtime.add(name, save(model, folder / "hf" / name), tiny_batch(1, 40)[0])
    runtime.run()
    return runtime, models


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_computes_what_the_model_does(name: str, cases: Any) -> None:
    """In every architecture, with every trap."""
    runtime, models = cases
    logits = expected(models[name], tiny_batch(1, 40)[0])
    got = runtime.logits(name)
    torch.testing.assert_close(got, logits, rtol=0, atol=0.03 * logits.std().item())
    assert (got.argmax(1) == logits.argmax(1)).float().mean() >= 0.95  # 40 random tokens


# --- the model that comes with the package ---


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, Any, torch.Tensor]:
    """Pruned so that blocks differ, with biases from the repair; and text that it wrote itself."""
    folder = tmp_path_factory.mktemp("quickstart")
    source = Source("quickstart").location
    model, tokenizer = load(source), AutoTokenizer.from_pretrained(source)
    begin = torch.arange(100, 109)[:, None]
    settings = {"do_sample": True, "max_new_tokens": 199, "min_new_tokens": 199}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        written: torch.Tensor = model.generate(begin, **settings)  # type: ignore[operator]
    batches, ids = [{"input_ids": written[:8, :128]}], written[8]
    plan = prune(model, FLAP(0.3, allocation=GlobalStandardised(), repair=Bias()), batches)
    counts = {(block.heads, block.width) for block in Anatomy(model).blocks}
    assert len(counts) > 1, "the blocks differ"
    saved = save(model, folder / "hf", plan, tokenizer)
    runtime = Runtime(folder)
    for dtype in QUICKSTART:
        runtime.add(dtype, saved, ids, dtype=dtype)
    runtime.run()
    return runtime, load(saved), ids


@pytest.mark.parametrize(
    ("dtype", "least"), [("f32", 0.99), ("f16", 0.99), ("bf16", 0.95), ("q8_0", 0.9)]
)
def test_the_likeliest_token_is_the_same_almost_everywhere(
    dtype: str, least: float, quickstart: Any
) -> None:
    """Over 200 tokens of text."""
    runtime, model, ids = quickstart
    agree = runtime.logits(dtype).argmax(1) == expected(model, ids).argmax(1)
    assert len(agree) == 200
    assert agree.float().mean() >= least


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_the_greedy_text_is_the_same(dtype: str, quickstart: Any) -> None:
    """48 tokens, one after the other, from the key/value cache."""
    runtime, model, ids = quickstart
    settings = {"max_new_tokens": 48, "min_new_tokens": 48, "do_sample": False, "eos_token_id": -1}
    mine = model.generate(ids[None, :5], **settings)[0, 5:]
    assert runtime.greedy(dtype) == mine.tolist()


# --- tokenizers ---


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tokenizers")
    runtime = Runtime(folder)
    runtime.asked["new"] = 1
    made = {name: byte_level(name, begins=name == "llama-bpe") for name in WAYS}
    made |= {"spm": sentencepiece(), "spm without prefix": sentencepiece(prefix=False)}
    for name, tokenizer in made.items():
        model = tiny_model("llama", vocab_size=720, num_hidden_layers=1)
        runtime.add(name, save(model, folder / "hf" / name, None, tokenizer), torch.arange(8))
        runtime.asked["texts"][name] = TEXTS
    runtime.run()
    return runtime, made


@pytest.mark.parametrize("name", [*WAYS, "spm", "spm without prefix"])
def test_llama_cpp_cuts_text_as_the_tokenizer_does(name: str, tokenizers: Any) -> None:
    """Contractions, numbers, spaces, scripts, special tokens."""
    runtime, made = tokenizers
    assert runtime.tokens(name) == [made[name](text).input_ids for text in TEXTS]
