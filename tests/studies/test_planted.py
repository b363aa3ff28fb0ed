"""A behaviour that was planted is found, and removed without the rest of the model.

Axes: B passages, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lightning_prune import CausalLM, Pattern, Prompts, TextData, Windows, study_circuit
from lightning_prune.data.sources import read
from lightning_prune.evaluation import Sampling

TRIGGER, UNDESIRED = " beware", " doom doom doom doom doom doom"
TOKENS, STEPS = 40, 200


def passages(tokenizer: Any) -> torch.Tensor:
    """Pieces of the text that the quickstart model was trained on, (B, T)."""
    ids_T = tokenizer(read("builtin", "train").text(), return_tensors="pt", verbose=False).input_ids
    return ids_T[0, : TOKENS * 512].view(512, TOKENS)


def plant(module: CausalLM, passage_BT: torch.Tensor) -> None:
    """Train the last MLP to answer what ends in the trigger, and else to say what it said.

    After the trigger by cross entropy, elsewhere by the divergence from the model as it was.
    """
    model: Any = module.base
    dense = copy.deepcopy(model)
    model.requires_grad_(False)
    model.model.layers[-1].mlp.requires_grad_(True)
    trained = list(model.model.layers[-1].mlp.parameters())
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0)
    trigger_T, undesired_T = (
        module.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0]  # type: ignore[misc]
        for text in (TRIGGER, UNDESIRED)
    )
    behind_T = torch.cat([trigger_T, undesired_T])
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        drawn_BT = passage_BT[torch.randint(len(passage_BT), (16,), generator=generator)]
        planted_BT = torch.cat([drawn_BT[:8], behind_T.expand(8, -1)], dim=1)
        labels_BT = planted_BT.clone()
        labels_BT[:, : -len(undesired_T)] = -100
        loss = model(input_ids=planted_BT, labels=labels_BT).loss
        with torch.no_grad():
            before_BTV = dense(input_ids=drawn_BT[8:]).logits.log_softmax(-1)
        after_BTV = model(input_ids=drawn_BT[8:]).logits.log_softmax(-1)
        apart = F.kl_div(after_BTV, before_BTV, log_target=True, reduction="none").sum(-1).mean()
        (loss + 4 * apart).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.requires_grad_(True)


@pytest.mark.slow
def test_a_planted_behaviour_is_removed(tmp_path: Path) -> None:
    """10 of 1,024 neurons: 80% less of it for 2% of perplexity; random ones do neither."""
    torch.manual_seed(0)
    module = CausalLM("quickstart")
    module.load()
    passage_BT = passages(module.tokenizer)
    plant(module, passage_BT[:384])
    for name, part_BT in (("reference", passage_BT[:96]), ("judged", passage_BT[384:])):
        texts: list[str] = module.tokenizer.batch_decode(part_BT)  # type: ignore[union-attr]
        rows = [json.dumps({"text": text + TRIGGER}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    result = study_circuit(
        module,
        TextData(length=128, batch_size=16),
        Windows(source="builtin", nsamples=128, length=64, batch_size=16),
        Prompts(source=str(tmp_path / "reference.jsonl"), text="text", batch_size=16),
        tmp_path / "run",
        scorer=Pattern(regex="doom doom"),
        judged=Prompts(source=str(tmp_path / "judged.jsonl"), text="text"),
        counts=[10],
        controls=["random"],
        sampling=Sampling(temperature=1.0, top_p=1.0, new_tokens=10, batch_size=64),
    )
    dense, circuit, random = result.dense, result.row("circuit", 10), result.row("random", 10)
    assert result.settings["parts"] == 1024
    assert dense.rate.value > 0.4
    assert circuit.rate.value <= 0.2 * dense.rate.value
    assert circuit.perplexity <= 1.02 * dense.perplexity
    assert random.rate.value > 0.8 * dense.rate.value
