"""The default optimizer and schedule."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_prune.models.optimization import adamw, by_step
from tests.tiny import tiny_model


def test_norms_and_biases_are_not_decayed():
    """Weight decay pulls on matrices only, and every parameter is in exactly one group."""
    model = tiny_model("qwen2")
    optimizer = adamw(model, 1e-3, 0.1)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == sum(1 for _ in model.parameters())
    for name, parameter in model.named_parameters():
        exempt = "norm" in name or name.endswith("bias")
        assert decay[id(parameter)] == (0.0 if exempt else 0.1), name


def test_frozen_parameters_are_left_out():
    """Optimizer states of frozen weights would cost memory for nothing."""
    model = tiny_model("llama")
    model.lm_head.weight.requires_grad_(False)
    held = {id(p) for group in adamw(model, 1e-3, 0.1).param_groups for p in group["params"]}
    assert id(model.lm_head.weight) not in held
    assert id(model.model.embed_tokens.weight) in held


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [0.5, 1, 1] + [(1 + math.cos(math.pi * x)) / 2 for x in (0.25, 0.5, 0.75, 1)]),
    ],
)
def test_the_learning_rate_rises_in_the_warmup_and_then_follows_its_schedule(schedule, expected):
    """Two warm-up steps of six; the last value is that after the last step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = by_step(optimizer, schedule, warmup_steps=2, total_steps=6)
    rates = made["lr_scheduler"]["scheduler"]
    seen = []
    for _ in expected:
        seen.append(rates.get_last_lr()[0])
        optimizer.step()
        rates.step()
    torch.testing.assert_close(seen, [float(x) for x in expected])


def test_a_falling_schedule_without_an_end_is_an_error():
    """Endless training has no point at which the learning rate could be 0."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="set the trainer's max_steps"):
        by_step(optimizer, "cosine", 0, math.inf)
