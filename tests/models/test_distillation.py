"""The loss of a distillation."""

from __future__ import annotations

import pytest
import torch

import lightning_prune
from lightning_prune import CausalLM, Distillation, DropBlocks, LoRA
from lightning_prune.anatomy import Anatomy
from lightning_prune.models.recovery.distiller import Distiller
from lightning_prune.surgery import shrink
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, uneven_plan


def student(model_type: str = "llama", adapter: LoRA | None = None, **settings) -> CausalLM:
    """A pruned student of tiny_model(model_type), ready to train."""
    module = CausalLM("unused", adapter=adapter, **settings)
    module.model = tiny_model(model_type)
    shrink(Anatomy(module.base), uneven_plan(module.base))
    torch.manual_seed(0)
    module.setup("fit")
    if adapter is not None:  # peft starts from an update of zero
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return module


def distiller(module: CausalLM, teacher=None, gone=(), **settings) -> Distiller:
    teacher = (teacher or tiny_model("llama")).requires_grad_(False)
    return Distillation(**settings).distiller(module, teacher, gone)


def padded_batch() -> dict[str, torch.Tensor]:
    """Two windows, one of them padded on the right, with a prompt that is not asked for."""
    ids_BT = tiny_batch(2, 9)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, 6:] = 0
    labels_BT = ids_BT.clone()
    labels_BT[0, :3] = -100
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}


def slow_losses(module, teacher, batch, weight, temperature) -> tuple[torch.Tensor, ...]:
    """Token by token, from the formula, in float64."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ours_BTV = module.model(**inputs).logits.double()
    theirs_BTV = teacher(**inputs).logits.double()
    entropies, divergences = [], []
    for b, labels_T in enumerate(batch["labels"]):
        for t in range(1, len(labels_T)):
            if labels_T[t] == -100 or batch["attention_mask"][b, t] == 0:
                continue
            ours_V, theirs_V = ours_BTV[b, t - 1], theirs_BTV[b, t - 1]
            entropies.append(-torch.log_softmax(ours_V, 0)[labels_T[t]])
            p_V = torch.exp(theirs_V / temperature) / torch.exp(theirs_V / temperature).sum()
            q_V = torch.exp(ours_V / temperature) / torch.exp(ours_V / temperature).sum()
            divergences.append((p_V * (p_V / q_V).log()).sum())
    cross_entropy, kl = sum(entropies) / len(entropies), sum(divergences) / len(divergences)
    return (1 - weight) * cross_entropy + weight * temperature**2 * kl, cross_entropy, kl


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_loss_is_the_formula_token_by_token(model_type: str) -> None:
    """Of every family, with padding and a prompt; Gemma caps its logits behind the head."""
    module, teacher = student(model_type), tiny_model(model_type)
    found = distiller(module, teacher, weight=0.3, temperature=1.7).losses(padded_batch())
    expected = slow_losses(module, teacher, padded_batch(), 0.3, 1.7)
    values = torch.stack([found["loss"], found["cross_entropy"], found["kl"]])
    torch.testing.assert_close(values, torch.stack(expected).float())


@pytest.mark.parametrize("adapter", [None, LoRA(r=2)], ids=["dense", "lora"])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_chunks_change_neither_the_loss_nor_the_gradients(
    adapter: LoRA | None, gradient_checkpointing: bool
) -> None:
    """Of 11 tokens, 4 at a time and all at once; with blocks computed again for the gradient."""
    results = []
    for chunk in (4, None):
        settings = {"gradient_checkpointing": gradient_checkpointing and chunk == 4}
        module = student(adapter=adapter, **settings)
        at_work = distiller(module, chunk=chunk, hidden=0.5)
        at_work.losses(padded_batch())["loss"].backward()
        gradients = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
        results.append((at_work.losses(padded_batch()), gradients))
    assert all(gradient is not None for gradient in results[0][1].values())
    torch.testing.assert_close(*results)


def test_no_more_logits_than_a_chunk_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the student nor by the teacher, in the forward and in the backward pass."""
    module, teacher = student(), tiny_model("llama")
    rows: list[int] = []

    def count(_: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        if output.shape[-1] == 64:  # not the hidden states of 32, where the head is left out
            rows.append(output.shape[:-1].numel())

    for model in (module.base, teacher):
        model.lm_head.register_forward_hook(count)
    distiller(module, teacher, chunk=4).losses(padded_batch())["loss"].backward()
    assert rows
    assert max(rows) == 4


def test_hidden_states_are_compared_block_by_block_after_blocks_were_dropped() -> None:
    """A student without the middle block: its second block is held against the third."""
    dense = tiny_model("llama")
    module = CausalLM("unused")
    module.model = tiny_model("llama", seed=1)
    lightning_prune.prune(module.base, DropBlocks(indices=[1]))
    found = distiller(module, dense, gone={1}, hidden=1.0).losses(padded_batch())["hidden"]
    inputs = {name: padded_batch()[name] for name in ("input_ids", "attention_mask")}
    outputs: list[torch.Tensor] = []
    blocks = (*module.base.model.layers, dense.model.layers[0], dense.model.layers[2])
    for block in blocks:
        block.register_forward_hook(lambda _, i, out: outputs.append(out))
    module.base(**inputs)
    dense(**inputs)
    ratios = []
    for ours, theirs in ((outputs[0], outputs[2]), (outputs[1], outputs[3])):
        ours_ND, theirs_ND = (x[inputs["attention_mask"] != 0] for x in (ours, theirs))
        ratios += [((a - b) @ (a - b)) / (b @ b) for a, b in zip(ours_ND, theirs_ND, strict=True)]
    torch.testing.assert_close(found, sum(ratios) / len(ratios))


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it() -> None:
    """The divergence and the distance are 0, and so are their gradients."""
    module = CausalLM("unused")
    module.model = tiny_model("llama")
    found = distiller(module, weight=1.0, hidden=1.0).losses(padded_batch())
    found["loss"].backward()
    torch.testing.assert_close(found["kl"], torch.zeros(()), atol=1e-6, rtol=0)
    assert found["hidden"].item() == 0
    assert all(p.grad is None or p.grad.abs().max() < 1e-5 for p in module.parameters())


def test_a_batch_that_asks_for_nothing_has_no_loss() -> None:
    """And a gradient of zero, as another process waits for one."""
    batch = padded_batch()
    batch["labels"] = torch.full_like(batch["labels"], -100)
    module = student()
    loss = distiller(module).losses(batch)["loss"]
    loss.backward()
    assert loss.item() == 0
    assert float(module.base.lm_head.weight.grad.abs().max()) == 0
