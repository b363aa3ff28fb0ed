"""A model whose small activations count as zero, and as it was before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import sparse_activations
from lightning_prune.analysis.activations import Thresholds
from lightning_prune.anatomy import Anatomy
from lightning_prune.kernels import read_thresholds
from lightning_prune.kernels.trial import CALLS, Trial, Way
from tests.tiny import tiny_batch, tiny_model


@pytest.fixture(params=["dense", "columns"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Products of few rows go this way, whichever is faster."""
    monkeypatch.setattr(Trial, "way", request.param)
    chosen: Way = request.param
    return chosen


def thresholds_of(model: nn.Module) -> dict[str, float]:
    """One for each Linear, not two alike; those that read one input have different ones."""
    sites = [site.name for block in Anatomy(model).blocks for site in block.sites]
    return {name: 0.02 * (i % 7 + 1) for i, name in enumerate(sites)}


def cut_by_hooks(model: nn.Module, thresholds: dict[str, float], run: Callable[[], Any]) -> Any:
    """What a model gives where each Linear gets a copy of its input with zeros in it."""

    def cutting(threshold: float) -> Any:
        return lambda _, inputs: (inputs[0] * (inputs[0].abs() > threshold),)

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(cutting(threshold))
        for name, threshold in thresholds.items()
    ]
    try:
        return run()
    finally:
        for hook in hooks:
            hook.remove()


def state(model: nn.Module) -> list[tuple[Any, ...]]:
    """What must not be changed: forwards, and how parameters lie."""
    forwards = [(n, m.__dict__.get("forward")) for n, m in model.named_modules()]
    return [*forwards, *((n, p.stride(), p.dtype) for n, p in model.named_parameters())]


@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt"])
@torch.no_grad()
def test_a_text_is_read_with_zeros(model_type: str) -> None:
    """Each Linear by its own threshold; fused projections and biases too."""
    model = tiny_model(model_type)
    thresholds, ids_BT = thresholds_of(model), tiny_batch()
    expected = cut_by_hooks(model, thresholds, lambda: model(input_ids=ids_BT).logits)
    with sparse_activations(model, thresholds):
        found = model(input_ids=ids_BT).logits
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, model(input_ids=ids_BT).logits)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("rows", [1, 3])
def test_decoding_gives_what_reading_gives(way: Way, rows: int, mode: Any) -> None:
    """Token by token with a cache, by either way; everything is left as it was."""
    model = tiny_model("llama")
    with mode():
        _decode(model, way, rows)


def _decode(model: Any, way: Way, rows: int) -> None:
    thresholds, before = thresholds_of(model), state(model)
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids_BT = tiny_batch()[:1].expand(rows, -1)[:, :12]
    expected = cut_by_hooks(model, thresholds, lambda: model(input_ids=ids_BT).logits)
    with sparse_activations(model, thresholds):
        output = model(input_ids=ids_BT[:, :8], use_cache=True)
        for token in range(8, 12):
            cache = output.past_key_values
            output = model(ids_BT[:, token : token + 1], past_key_values=cache, use_cache=True)
            torch.testing.assert_close(output.logits[:, 0], expected[:, token])
        laid_out = [n for n, p in model.named_parameters() if p.ndim == 2 and p.stride(0) == 1]
        assert laid_out == ([f"{n}.weight" for n in thresholds] if way == "columns" else [])
    assert state(model) == before
    torch.testing.assert_close(dict(model.state_dict()), values, rtol=0, atol=0)


def _fail_in_the_middle(model: Any) -> None:
    with sparse_activations(model, thresholds_of(model)):
        model(input_ids=tiny_batch()[:1, :1])
        assert model.model.layers[0].mlp.down_proj.weight.stride(0) == 1
        raise RuntimeError("in the middle")


@torch.no_grad()
def test_an_error_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where weights lie by columns, and another forward stood there before."""
    monkeypatch.setattr(Trial, "way", "columns")
    model = tiny_model("llama")
    linear = model.model.layers[0].mlp.down_proj
    linear.forward = own = lambda x: nn.functional.linear(x, linear.weight)
    before = state(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        _fail_in_the_middle(model)
    assert state(model) == before
    assert linear.forward is own


@torch.no_grad()
def test_the_inner_of_two_counts_for_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """And behind it the outer one again."""
    monkeypatch.setattr(Trial, "way", "columns")
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    for linear in model:
        linear.weight.copy_(torch.eye(4))
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    with sparse_activations(model, {"0": 1.5, "1": 2.5}):
        assert model(x).tolist() == [[0, 0, 3, 4]]
        with sparse_activations(model, {"1": 3.5}):
            assert model(x).tolist() == [[0, 0, 0, 4]]
        assert model(x).tolist() == [[0, 0, 3, 4]]
    assert model(x).tolist() == x.tolist()


@torch.no_grad()
def test_it_counts_what_was_not_needed(way: Way) -> None:
    """Of weights: an input counts as many as it has outputs."""
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 2, bias=False))
    with sparse_activations(model, {"0": 2.5, "1": 1e9}) as sparse:
        assert sparse.unread is None
        model(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert sparse.unread == pytest.approx((2 * 6 + 6 * 2) / (4 * 6 + 6 * 2))


@torch.no_grad()
def test_the_way_that_was_taken_is_said_in_one_line() -> None:
    """When it is known; a text has none."""
    model = nn.Sequential(nn.Linear(8, 6))
    with sparse_activations(model, {"0": 0.5}) as sparse:
        model(torch.randn(50, 8))
        assert sparse.note == ""
        for _ in range(2 * CALLS):
            model(torch.randn(2, 8))
    assert "\n" not in sparse.note
    assert "6 x 8, 2 rows (" in sparse.note


def test_training_goes_through_what_is_left() -> None:
    """Few rows, too: gradients are those of the dense product with zeros."""
    model = nn.Sequential(nn.Linear(4, 3))
    x = torch.tensor([[0.1, -2.0, 0.2, 3.0]], requires_grad=True)
    with sparse_activations(model, {"0": 1.0}):
        model(x).sum().backward()
    weight_I = model[0].weight.detach().sum(dim=0)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], weight_I * torch.tensor([0.0, 1.0, 0.0, 1.0]))
    expected = torch.tensor([0.0, -2.0, 0.0, 3.0]).expand(3, 4)
    torch.testing.assert_close(model[0].weight.grad, expected)


@torch.no_grad()
def test_autocast_says_of_what_type_products_are(way: Way) -> None:
    """Of few rows, too, whichever way they would go without it."""
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.tensor([[0.1, -2.0, 0.2, 3.0]])
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x * (x.abs() > 1))
        with sparse_activations(model, {"0": 1.0}):
            found = model(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@torch.no_grad()
def test_a_weight_that_lay_by_columns_does_so_again(way: Way) -> None:
    """Also where the dense product has it by rows meanwhile."""
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].weight.data = model[0].weight.data.T.contiguous().T
    before = state(model)
    with sparse_activations(model, {"0": 1.0}):
        model(torch.ones(1, 4))
    assert state(model) == before


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({}, "no thresholds; give one"),
        ({"model.layers.0.mlp.down_pro": 0.1}, "Did you mean model.layers.0.mlp.down_proj"),
        ({"model.norm": 0.1}, "no Linear of that name"),
        ({"lm_head": -1.0}, "lm_head is -1.0; it is 0 or more"),
        ({"lm_head": float("nan")}, "lm_head is nan"),
    ],
)
def test_thresholds_of_another_model_are_refused(
    thresholds: dict[str, float], message: str
) -> None:
    """Before anything is changed."""
    model = tiny_model("llama")
    before = state(model)
    with pytest.raises(ValueError, match=message), sparse_activations(model, thresholds):
        pass
    assert state(model) == before


@torch.no_grad()
def test_thresholds_lie_in_a_file_or_a_models_folder(tmp_path: Path) -> None:
    """As `analyze activations` writes them."""
    model = tiny_model("llama")
    found = Thresholds(0.5, "tiny", 128, thresholds_of(model), "site", {})
    found.write(tmp_path / "activation_thresholds.json")
    assert read_thresholds(tmp_path) == read_thresholds(tmp_path / "activation_thresholds.json")
    with sparse_activations(model, tmp_path) as sparse:
        model(input_ids=tiny_batch())
    assert list(sparse.linears) == list(found.thresholds)
    with pytest.raises(FileNotFoundError, match="analyze activations` finds them"):
        read_thresholds(tmp_path / "other.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no thresholds"):
        read_thresholds(tmp_path / "other.json")
    widths = dict.fromkeys(found.thresholds, 4096)
    replace(found, widths=widths).write(tmp_path / "activation_thresholds.json")
    with (
        pytest.raises(ValueError, match=r"is of 4096 inputs, and LlamaForCausalLM has 32 there"),
        sparse_activations(model, tmp_path),
    ):
        pass
