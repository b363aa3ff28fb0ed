"""What the teacher says, and that it stays outside."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_prune
from lightning_prune import CausalLM, Distillation, DropBlocks, GQATaylor, LoRA
from lightning_prune.anatomy import Anatomy
from lightning_prune.models.distiller import Distiller
from lightning_prune.surgery import shrink
from tests.lightning.runs import Losses, checkpoints, make_data, make_trainer
from tests.models.test_causal_lm import QUIET
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, uneven_plan

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")]


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


def distiller(module: CausalLM, teacher=None, gone=None, **settings) -> Distiller:
    teacher = teacher or tiny_model("llama")
    return Distiller(Distillation(**settings), module, teacher.requires_grad_(False), gone)


def padded_batch() -> dict[str, torch.Tensor]:
    """Two windows, one of them padded on the right, with a prompt that is not asked for."""
    ids_BT = tiny_batch(2, 9)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, 6:] = 0
    labels_BT = ids_BT.clone()
    labels_BT[0, :3] = -100
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}


# --- the loss ---


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


# --- a run ---


def run(
    root: Path, model: Path, text: Path, *callbacks: Callback, steps: int = 6, **settings
) -> tuple[Trainer, CausalLM, Losses]:
    torch.manual_seed(0)
    resumed = {"ckpt_path": settings.pop("ckpt_path")} if "ckpt_path" in settings else {}
    distillation = settings.pop("distillation", Distillation(hidden=0.1, chunk=50))
    module, losses = CausalLM(str(model), distillation=distillation, **settings), Losses()
    callbacks = (GQATaylor(ratio=0.25), losses, *callbacks)
    trainer = make_trainer(root, *callbacks, steps=steps, limit_val_batches=1)
    trainer.fit(module, make_data(text), **resumed)
    return trainer, module, losses


def test_the_teacher_is_in_no_checkpoint_and_no_optimizer(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Everything that is saved and trained is the student's; in the end the teacher is let go."""
    seen: list[tuple[int, int]] = []

    class Count(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
            groups = trainer.optimizers[0].param_groups
            trained = sum(p.numel() for group in groups for p in group["params"])
            seen.append((trained, sum(p.numel() for p in pl_module.base.parameters())))
            assert not any(pl_module._distiller.teacher is m for m in pl_module.modules())

    trainer, module, _ = run(tmp_path, model_folder, text_file, Count(), checkpoints(tmp_path))
    (trained, ours) = seen[0]
    assert (
        trained == ours < sum(p.numel() for p in tiny_model("llama", vocab_size=300).parameters())
    )
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == module.state_dict().keys()
    assert module._distiller is None
    assert trainer.callback_metrics.keys() >= {
        *("train_loss", "train_cross_entropy", "train_kl", "train_hidden"),
    }


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    tmp_path: Path, model_folder: Path, text_file: Path, adapter: str | None
) -> None:
    """Bit for bit: the dense model is loaded from its path again."""
    settings = {"adapter": adapter, "learning_rate": 1e-2}
    _, whole, losses = run(tmp_path / "whole", model_folder, text_file, **settings)
    cut, keep = tmp_path / "cut", ModelCheckpoint(tmp_path, "half", every_n_train_steps=3)
    run(cut, model_folder, text_file, keep, steps=3, **settings)
    settings["ckpt_path"] = str(tmp_path / "half.ckpt")
    _, resumed, rest = run(cut, model_folder, text_file, **settings)
    assert list(rest.values) == [4, 5, 6]
    assert {step: losses.values[step] for step in rest.values} == rest.values
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_as_one_does(
    tmp_path: Path, model_folder: Path, text_file: Path, strategy: str
) -> None:
    """With the same windows in each step: the same losses and weights; FSDP2 shards the teacher."""
    results = []
    for name, devices, batch_size in (("auto", 1, 4), (strategy, 2, 2)):
        arguments = [str(tmp_path / name), str(model_folder), str(text_file), name]
        subprocess.run(
            [sys.executable, "-m", "tests.models.distilled_fit", *arguments]
            + [str(devices), str(batch_size)],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            timeout=240,
        )
        losses = json.loads((tmp_path / name / "losses.json").read_text())
        results.append((losses, lightning_prune.load(tmp_path / name / "model").state_dict()))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


# --- what cannot be ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, r"weight=1.5 must be in \[0, 1\]"),
        ({"weight": 0.0}, "not both 0"),
        ({"hidden": -1.0}, "hidden=-1.0 0 or more"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"chunk": 0}, "chunk=0 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    """When they are given, with the range."""
    with pytest.raises(ValueError, match=message):
        Distillation(**settings)


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({"vocab_size": 64}, {}, "vocabulary of 64 tokens, and the model one of 300"),
        ({"hidden_size": 24}, {"hidden": 1.0}, "has a hidden size of 24, the model 32 before"),
        (
            {"num_hidden_layers": 2},
            {"hidden": 1.0},
            "has a number of blocks of 2, the model 3 before",
        ),
        (None, {}, "as many tokens as the model, but [0-9]+ of them stand for something else"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_pruning(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    changed: dict[str, int] | None,
    settings: dict[str, float],
    message: str,
) -> None:
    """From its files alone: no plan has been made when the error comes."""
    teacher = tmp_path / "teacher"
    tiny_model("llama", **({"vocab_size": 300} | (changed or {}))).save_pretrained(teacher)
    if changed is None:
        names = json.loads((model_folder / "tokenizer.json").read_text())
        vocabulary = names["model"]["vocab"]
        numbers = list(vocabulary.values())
        names["model"]["vocab"] = dict(zip(vocabulary, numbers[1:] + numbers[:1], strict=True))
        names["added_tokens"] = []
        (teacher / "tokenizer.json").write_text(json.dumps(names))
        config = json.loads((model_folder / "tokenizer_config.json").read_text())
        (teacher / "tokenizer_config.json").write_text(json.dumps(config))
    distillation = Distillation(teacher=str(teacher), **settings)
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path / "run", model_folder, text_file, distillation=distillation)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run" / "plan").exists()


def test_an_unknown_teacher_is_refused_before_pruning(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """As an unknown model is."""
    distillation = Distillation(teacher="no such/teacher/anywhere")
    with pytest.raises(FileNotFoundError, match="no model 'no such/teacher/anywhere'"):
        run(tmp_path / "run", model_folder, text_file, distillation=distillation)
    assert not (tmp_path / "run" / "plan").exists()


def test_a_model_is_not_its_own_teacher(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Without a method and without a teacher there is nothing to learn."""
    module = CausalLM(str(model_folder), distillation=Distillation())
    with pytest.raises(ValueError, match="its own teacher, and nothing has pruned it"):
        make_trainer(tmp_path).fit(module, make_data(text_file))


def test_a_pruned_folder_is_not_its_own_teacher(tmp_path: Path, model_folder: Path) -> None:
    """Its plan lies beside it; with the dense model named, blocks are told by their old numbers."""
    model = lightning_prune.load(model_folder)
    plan = lightning_prune.prune(model, DropBlocks(indices=[1]))
    lightning_prune.save(model, tmp_path / "pruned", plan)
    with pytest.raises(ValueError, match="pruned already. Name the dense model"):
        CausalLM(str(tmp_path / "pruned"), distillation=Distillation()).load()
    named = Distillation(teacher=str(model_folder), hidden=1.0)
    module = CausalLM(str(tmp_path / "pruned"), distillation=named)
    module.load()
    at_work = named.start(module)
    layers = at_work.teacher.model.layers
    assert at_work.teaching == [layers[0], layers[2]]


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_pruning(
    model_folder: Path, device: str
) -> None:
    """Both a name that torch does not know, and a device that the machine does not have."""
    module = CausalLM(str(model_folder), distillation=Distillation(device=device))
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used for the teacher"):
        module.load()


def test_a_model_from_a_config_needs_a_named_teacher() -> None:
    """There is no dense one to load."""
    config = tiny_model("llama").config.to_dict()
    module = CausalLM(config=copy.deepcopy(config), distillation=Distillation())
    with pytest.raises(ValueError, match="made from a config. Name a teacher"):
        module.load()
