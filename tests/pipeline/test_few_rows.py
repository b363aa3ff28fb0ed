"""Too little calibration text is said in one line, with how much would be enough."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lightning_prune import FLAP, Bias, Magnitude, ResidualFit, SparseGPT, Wanda, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.anatomy.tasks import ImageTask
from lightning_prune.evidence import Gram, InputNorm
from lightning_prune.pipeline import rows
from lightning_prune.pipeline.rows import few_rows
from tests.tiny import tiny_batch, tiny_model

LOGGER = "lightning_prune.pipeline.rows"


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    rows._once.cache_clear()


def test_the_line_says_how_many_tokens_there_are_and_how_many_are_enough() -> None:
    """By the widest input, which is the one that lacks most."""
    anatomy = Anatomy(tiny_model("llama"))
    blocks, task = anatomy.blocks, anatomy.task
    sites = [site for block in blocks for site in block.sites]
    width = max(site.module.in_features for site in sites)
    line = few_rows([InputNorm(), Gram()], blocks, 4 * width - 1, task)
    assert line is not None
    assert line.startswith(f"{4 * width - 1:,} calibration tokens are few for inputs {width} wide")
    assert "model.layers.0.self_attn.o_proj" in line
    assert f"from {4 * width:,} tokens on" in line
    assert few_rows([InputNorm(), Gram()], blocks, 4 * width, task) is None
    assert few_rows([InputNorm()], blocks, 1, task) is None
    assert few_rows([], blocks, 1, task) is None
    images = few_rows([Gram()], blocks, 1, ImageTask())
    assert images is not None
    assert images.startswith("1 calibration patches are few")
    assert images.endswith("Give more nsamples.")


@pytest.mark.parametrize(
    ("method", "asks"),
    [
        (SparseGPT(sparsity=0.5), True),
        (ResidualFit(sparsity=0.5), True),
        (FLAP(ratio=0.3), True),  # its repair solves
        (FLAP(ratio=0.3, repair=Bias()), False),
        (Wanda(sparsity=0.5), False),
        (Magnitude(sparsity=0.5), False),
    ],
    ids=repr,
)
def test_methods_that_solve_say_it_once(
    method: Any, asks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Others need no more text than they get."""
    batch = {"input_ids": tiny_batch()}
    assert torch.numel(batch["input_ids"]) < 200
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(2):
            prune(tiny_model("llama"), method, [batch])
    said = [record for record in caplog.records if record.name == LOGGER]
    assert len(said) == int(asks)
