"""Errors on the way leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lightning_prune import GQATaylor, Wanda, prune
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.sweep.helpers import traces
from tests.tiny import tiny_model


def test_an_error_before_the_decision_changes_nothing() -> None:
    """A method that surveys first leaves the model whole when a later block fails."""
    model = even_model("llama")
    with torch.no_grad():
        model.model.layers[2].input_layernorm.weight[0] = float("inf")
    before = state(model)
    with pytest.raises(ValueError, match="not finite"):
        prune(model, GQATaylor(ratio=0.5), batches())
    assert_same_state(model, before)


def test_batches_that_fail_are_the_callers_error() -> None:
    """What the iterable raises comes through, and the model is as it was."""

    def broken() -> Iterator[dict[str, torch.Tensor]]:
        yield batches()[0]
        raise OSError("disk gone")

    model = even_model("llama")
    before, marks = state(model), traces(model)
    with pytest.raises(OSError, match="disk gone"):
        prune(model, Wanda(sparsity=0.5), broken())
    assert_same_state(model, before)
    assert traces(model) == marks


@pytest.mark.parametrize("method", ["wanda", Wanda])
def test_what_is_no_method_is_refused(method: Any) -> None:
    """A name or a class is not a method."""
    with pytest.raises(TypeError, match="prune takes a model and a method"):
        prune(tiny_model("llama"), method, batches())
