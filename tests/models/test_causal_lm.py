"""CausalLM under a real Trainer, on the CPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_prune.models import CausalLM, LoRA, merged_model
from tests.tiny import tiny_batch

CONFIG = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}

QUIET = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]
pytestmark = QUIET


def module(seed: int = 0, **arguments) -> CausalLM:
    torch.manual_seed(seed)
    made = CausalLM(config=CONFIG, **arguments)
    made.load()
    return made


def loader(windows: int = 24, tokens: int = 12, batch_size: int = 4, seed: int = 1) -> DataLoader:
    ids_NT = tiny_batch(windows, tokens, seed)
    return DataLoader([{"input_ids": ids_T, "labels": ids_T} for ids_T in ids_NT], batch_size)


def trainer(folder: Path | None = None, **arguments) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    checkpoints = {"enable_checkpointing": "callbacks" in arguments}
    defaults = {"accelerator": "cpu", "max_steps": 6, "default_root_dir": folder}
    return Trainer(**(quiet | checkpoints | defaults | arguments))


class Losses(Callback):
    """Notes every training loss; may fail before a step, as a machine would."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.seen: list[float] = []
        self.fail_at = fail_at

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.fail_at:
            raise KeyboardInterrupt

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.seen.append(float(outputs["loss"]))


def validated(model: CausalLM, batches: DataLoader) -> dict[str, float]:
    return trainer().validate(model, batches, verbose=False)[0]


# --- setup ---


def test_repeated_setup_loads_and_attaches_once():
    """Lightning calls setup for every stage, and callbacks call load themselves."""
    made = module(adapter=LoRA(r=2))
    base = made.base
    for stage in ("validate", "fit", "fit", "test"):
        made.setup(stage)
        made.configure_model()
    assert made.base is base
    lora = [name for name, _ in made.named_parameters() if "lora_A" in name]
    assert len(lora) == 2 * 7


def test_the_adapter_is_attached_for_training_only():
    """Validation of a dense model sees the dense model."""
    made = module(adapter=LoRA(r=2))
    made.setup("validate")
    assert made.model is made.base


def test_a_loaded_model_is_in_training_mode_when_fit_starts():
    """Hugging Face loads in evaluation mode, and Lightning leaves the mode as it is."""
    made = module(gradient_checkpointing=True)
    made.eval()
    made.setup("fit")
    assert all(m.training for m in made.modules())
    assert made.base.is_gradient_checkpointing


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_gradient_checkpointing_does_not_change_the_gradients(adapter):
    """Frozen embeddings must not cut the recomputed blocks off."""
    batch, gradients = {"input_ids": tiny_batch()}, []
    for checkpointing in (False, True):
        made = module(adapter=adapter, gradient_checkpointing=checkpointing)
        made.setup("fit")
        torch.manual_seed(0)
        for parameter in made.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
        made(batch).square().mean().backward()
        gradients.append({n: p.grad for n, p in made.named_parameters() if p.requires_grad})
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0].values())
    torch.testing.assert_close(*gradients)


def test_an_adapter_that_does_not_fit_is_refused_when_the_model_is_loaded():
    """That is before it is pruned, and long before the adapter is attached."""
    with pytest.raises(ValueError, match="'w_proj', which matches no Linear"):
        module(adapter=LoRA(target_modules=["w_proj"]))


# --- steps ---


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_training_lowers_the_loss(adapter):
    """And with an adapter, the frozen weights stay as they were."""
    made, losses = module(adapter=adapter, learning_rate=1e-2), Losses()
    frozen = copy.deepcopy(made.base.model.layers[0].mlp.up_proj.weight)
    fit = trainer(max_steps=30, callbacks=[losses], enable_checkpointing=False)
    fit.fit(made, loader(windows=4))
    assert losses.seen[-1] < 0.95 * losses.seen[0]
    if adapter:
        torch.testing.assert_close(
            made.base.model.layers[0].mlp.up_proj.base_layer.weight, frozen, rtol=0, atol=0
        )


def test_validation_does_not_depend_on_the_batch_size():
    """Seven windows, in batches of one, three and seven."""
    made = module()
    results = [validated(made, loader(windows=7, batch_size=size)) for size in (1, 3, 7)]
    for result in results:
        assert result["val_perplexity"] == pytest.approx(results[0]["val_perplexity"], rel=1e-5)
        assert result["val_loss"] == pytest.approx(results[0]["val_loss"], rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_validation_does_not_depend_on_padding(side):
    """Padded tokens are neither predicted nor looked at."""
    made, ids_NT = module(), tiny_batch(3, 12)
    windows = []
    for ids_T, length in zip(ids_NT, (12, 9, 5), strict=True):
        pad = (12 - length, 0) if side == "left" else (0, 12 - length)
        padded_T = torch.nn.functional.pad(ids_T[:length], pad, value=0)
        mask_T = torch.nn.functional.pad(torch.ones(length, dtype=torch.long), pad, value=0)
        windows.append({"input_ids": padded_T, "attention_mask": mask_T})
    alone = [{"input_ids": ids_NT[i, :length]} for i, length in enumerate((12, 9, 5))]
    assert validated(made, DataLoader(windows, 3)) == pytest.approx(
        validated(made, DataLoader(alone, 1)), rel=1e-5
    )


def test_test_and_predict_agree_with_validation():
    """One text, one perplexity, by three roads."""
    made, batches = module(), loader(windows=5, batch_size=2)
    expected = validated(made, batches)
    tested = trainer().test(made, batches, verbose=False)[0]
    assert tested["test_perplexity"] == pytest.approx(expected["val_perplexity"])
    nll_N = torch.cat(trainer().predict(made, batches))
    assert nll_N.shape == (5,)
    assert float(nll_N.mean()) == pytest.approx(expected["val_loss"], rel=1e-5)


# --- checkpoints ---


def checkpoint(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, every_n_epochs=3, save_on_train_epoch_end=True)


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_an_interrupted_fit_continues_with_the_same_losses(tmp_path, adapter):
    """Weights, optimizer and schedule come back; the place in the data is the datamodule's."""
    settings = {"adapter": adapter, "schedule": "cosine", "learning_rate": 1e-2}
    whole = Losses()
    trainer(callbacks=[whole], enable_checkpointing=False).fit(module(**settings), loader(4))

    first, rest = Losses(fail_at=3), Losses()
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks=[first, checkpoint(tmp_path)]).fit(
            module(**settings), loader(4)
        )
    (saved,) = tmp_path.glob("*.ckpt")
    trainer(tmp_path, callbacks=[rest, checkpoint(tmp_path)]).fit(
        module(**settings), loader(4), ckpt_path=str(saved)
    )
    torch.testing.assert_close(first.seen + rest.seen, whole.seen, rtol=0, atol=0)


def test_with_an_adapter_a_checkpoint_holds_only_what_is_trained(tmp_path):
    """The frozen model would be written again with every checkpoint."""
    fit = trainer(tmp_path, max_steps=3, callbacks=[checkpoint(tmp_path)])
    fit.fit(module(adapter="lora"), loader(4))
    (saved,) = tmp_path.glob("*.ckpt")
    names = torch.load(saved, weights_only=True)["state_dict"].keys()
    assert len(names) == 2 * 2 * 7
    assert all("lora_" in name for name in names)


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path):
    """For example when the plan that cut the model is not applied first."""
    fit = trainer(tmp_path, max_steps=3, callbacks=[checkpoint(tmp_path)])
    fit.fit(module(adapter="lora"), loader(4))
    (saved,) = tmp_path.glob("*.ckpt")
    other = CausalLM(config=CONFIG | {"intermediate_size": 40}, adapter="lora")
    with pytest.raises(ValueError, match="does not fit.*such as .*mlp") as caught:
        trainer(tmp_path, callbacks=[checkpoint(tmp_path)]).fit(
            other, loader(), ckpt_path=str(saved)
        )
    assert len(str(caught.value).splitlines()) == 1


# --- merging ---


def trained(adapter: str | None) -> CausalLM:
    made = module(adapter=adapter, learning_rate=1e-2)
    trainer().fit(made, loader())
    return made.eval()


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_the_merged_copy_is_a_plain_model_of_the_same_function(adapter):
    """And the module can be trained further: nothing of it was touched."""
    made, tokens = trained(adapter), tiny_batch()
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    merged = merged_model(made)
    assert type(merged) is type(made.base)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    torch.testing.assert_close(merged(tokens).logits, made({"input_ids": tokens}))
    torch.testing.assert_close(made.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_the_merged_copy_shares_no_memory_with_the_module(adapter):
    """Whatever is done to the copy does not reach the module."""
    made = trained(adapter)
    state = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    for parameter in merged_model(made).parameters():
        parameter.data.zero_()
    torch.testing.assert_close(made.state_dict(), state, rtol=0, atol=0)


def test_merging_in_place_gives_the_same_model():
    """Where there is no room for a copy."""
    made, tokens = trained("lora"), tiny_batch()
    expected = merged_model(made)(tokens).logits
    made.merge_adapter()
    assert made.model is made.base
    torch.testing.assert_close(made.base(tokens).logits, expected)


def test_a_merged_model_is_saved_and_loaded_again(tmp_path):
    """As an ordinary Hugging Face folder."""
    made, tokens = trained("lora"), tiny_batch()
    merged_model(made).save_pretrained(tmp_path)
    again = CausalLM(path=str(tmp_path))
    again.load()
    torch.testing.assert_close(again.base(tokens).logits, made({"input_ids": tokens}))


def test_batches_that_are_no_dicts_are_refused() -> None:
    """In words, not as a missing attribute of a tensor."""
    made = module()
    made.load()
    with pytest.raises(ValueError, match="dicts with input_ids.*gives Tensor"):
        made(torch.zeros(1, 4, dtype=torch.long))


def test_a_monitor_that_nothing_logs_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    """With what is logged."""
    stop = EarlyStopping(monitor="val_perplexty")
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", callbacks=[stop], max_steps=1, logger=False
    )
    with pytest.raises(ValueError, match="monitors 'val_perplexty'.*Logged are val_perplexity"):
        trainer.fit(CausalLM(config=CONFIG), DataLoader([tiny_batch()]))
