"""A real language model: pruned, recovered, saved, loaded, asked to write, and taken to llama.cpp.

It is SmolLM2-135M-Instruct. Few and short windows, so that all of it takes a minute or two; it is
left to `make test-real`.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gguf")

from lightning_prune import (
    CausalLM,
    GQATaylor,
    LoRA,
    SavePretrained,
    SparseGPT,
    TextData,
    Wanda,
    load,
    prune,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.attribution import attnlrp
from lightning_prune.evaluation import continuation, perplexity
from lightning_prune.export.gguf import to_gguf
from tests.export.gguf_forward import File
from tests.lightning.runs import make_trainer
from tests.shared import shared_path

pytestmark = pytest.mark.real

CPU = torch.device("cpu")
WINDOWS, TOKENS = 4, 64


@pytest.fixture(scope="module")
def smollm2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Hugging Face folder, made once and kept in pytest's cache, if there is one."""
    program = shared_path("models/smollm2-135m/make_hf.py")
    cache = getattr(request.config, "cache", None)
    kept = tmp_path_factory.mktemp("smollm2") if cache is None else cache.mkdir("smollm2")
    folder = kept / "model"
    subprocess.run([sys.executable, program, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def data(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> TextData:
    """The first articles of WikiText-2: nine tenths to calibrate and train with."""
    text = shared_path("data/wikitext2/train_first1mb.txt").read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("wikitext2") / "text.txt"
    path.write_text(text[:60_000], encoding="utf-8")
    data = TextData(str(path), nsamples=WINDOWS, length=TOKENS, batch_size=2)
    data.attach(CausalLM(str(smollm2)).tokenizer, TOKENS)
    return data


def judged(model: Any, data: TextData) -> float:
    """On four windows that nothing was calibrated with."""
    return float(perplexity(model, list(data.val_dataloader())[:2]))


@pytest.mark.parametrize("method", [Wanda(sparsity=0.5), SparseGPT(sparsity=0.5)], ids=str)
def test_half_of_the_weights_go(method: Any, smollm2: Path, data: TextData) -> None:
    """Exactly half of each Linear's; what is left is still a language model."""
    model = load(smollm2, dtype="float32")
    dense = judged(model, data)
    plan = prune(model, method, data.calibration_dataloader())
    assert plan.sparsity() == 0.5
    assert dense < 60
    assert dense < judged(model, data) < 6 * dense


def test_a_smaller_model_is_recovered_and_taken_away(
    smollm2: Path, data: TextData, tmp_path: Path
) -> None:
    """In one run: a fifth of each block's neurons goes, and five steps of LoRA help."""
    module = CausalLM(
        str(smollm2), dtype="float32", adapter=LoRA(r=8), learning_rate=1e-3, warmup_steps=0
    )
    method = GQATaylor(ratio=0.2, attention=False, round_to=32, repair=None)
    trainer = make_trainer(tmp_path, method, SavePretrained(), steps=5, limit_val_batches=0)
    trainer.fit(module, data)

    pruned, recovered = (load(tmp_path / name) for name in ("pruned", "recovered"))
    assert {block.mlp.up_proj.out_features % 32 for block in recovered.model.layers} == {0}
    assert sum(p.numel() for p in recovered.parameters()) < 134_515_008 * 0.9
    assert judged(recovered, data) < judged(pruned, data) < math.inf

    tokenizer = module.tokenizer
    assert tokenizer is not None
    answer = continuation(recovered, tokenizer, "The capital of France is", CPU, tokens=8)
    assert answer is not None
    assert answer.text.strip()

    file = File(to_gguf(tmp_path / "recovered", tmp_path / "model.gguf").path)
    ids_T = tokenizer("The capital of France is", return_tensors="pt")["input_ids"][0]
    with torch.no_grad():
        expected_TV = recovered(ids_T[None]).logits[0]
    torch.testing.assert_close(file.logits(ids_T), expected_TV, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_relevance_is_what_the_rules_promise(smollm2: Path, attention: str) -> None:
    """The same logits; gate and up have half of down, neuron by neuron; the softmax takes some."""
    model: Any = load(smollm2, dtype=torch.float32)
    model.set_attn_implementation(attention)
    embedded = model.get_input_embeddings()(torch.arange(1000, 1064)[None]).detach()
    embedded.requires_grad_()
    expected = model(inputs_embeds=embedded).logits
    sites = {s.weight_name: s.module.weight for b in Anatomy(model).blocks for s in b.sites}
    with attnlrp(model):
        logits = model(inputs_embeds=embedded).logits
        answer = logits[:, -1].amax()
        gradients = torch.autograd.grad(answer, [embedded, *sites.values()])
    assert torch.equal(logits, expected)
    named = zip(sites.items(), gradients[1:], strict=True)
    relevance = {name: (weight * gradient).detach() for (name, weight), gradient in named}
    for block in Anatomy(model).blocks:
        read_U = relevance[f"{block.name}.mlp.down_proj.weight"].sum(dim=0)
        for part in ("gate", "up"):
            part_U = relevance[f"{block.name}.mlp.{part}_proj.weight"].sum(dim=1)
            assert (2 * part_U - read_U).norm() < 1e-3 * read_U.norm()
    assert 0 < float((embedded.detach() * gradients[0]).sum()) < float(answer.detach())
