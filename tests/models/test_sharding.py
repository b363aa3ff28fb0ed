"""CausalLM under FSDP2, on two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_prune.models import merged_model
from lightning_prune.models.sharding import data_mesh
from tests.models.sharded_fit import pruned
from tests.models.test_causal_lm import QUIET, loader, trainer

pytestmark = QUIET


@pytest.mark.slow
def test_two_sharded_processes_give_the_model_that_one_process_gives(tmp_path):
    """With the same windows in each step: the same perplexity and the same merged weights.

    Also of a model with empty weights, where attention and MLP were taken out.
    """
    single = pruned()
    fit = trainer()
    fit.fit(single, loader(windows=8, batch_size=8))
    (expected,) = fit.validate(single, loader(windows=8), verbose=False)

    subprocess.run(
        [sys.executable, "-m", "tests.models.sharded_fit", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=240,
    )
    assert json.loads((tmp_path / "result.json").read_text()) == pytest.approx(expected, rel=1e-4)
    weights = merged_model(single).state_dict()
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4)


def test_tensor_parallelism_is_refused_with_the_two_numbers_to_set():
    """It is what ModelParallelStrategy asks for by default."""
    mesh = {"tensor_parallel": FakeAxis(2), "data_parallel": FakeAxis(1)}
    with pytest.raises(ValueError, match="strategy: fsdp2"):
        data_mesh(mesh)


class FakeAxis:
    """One axis of a device mesh, without the processes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def size(self) -> int:
        return self._size
