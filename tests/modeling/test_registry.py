"""The classes of uneven models, known to transformers and to pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from lightning_prune.anatomy import Anatomy
from lightning_prune.export.hf import save
from tests.checkpoints.models import assert_same_model, uneven
from tests.tiny import MODEL_TYPES, tiny_batch


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_auto_classes_know_uneven_models_without_remote_code(
    model_type: str, tmp_path: Path
) -> None:
    """With lightning_prune imported, `from_pretrained` needs no `trust_remote_code`."""
    model = uneven(model_type)
    save(model, tmp_path / "model")
    assert_same_model(model, AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    base = AutoModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(
            base(tiny_batch()).last_hidden_state, model.base_model(tiny_batch()).last_hidden_state
        )


def test_an_uneven_model_made_from_its_config_is_initialised() -> None:
    """`from_config` gives fresh weights of the right sizes, not leftovers of the memory."""
    config = uneven("opt").config
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    assert [(b.heads, b.width) for b in Anatomy(model).blocks] == [(1, 22), (8, 3), (3, 9)]
    for site in Anatomy(model).blocks[0].sites:
        assert 0.01 < site.module.weight.std() < 0.03  # OPT's init_std is 0.02
        assert (site.module.bias == 0).all()
