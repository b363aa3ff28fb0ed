"""What goes into a model, what of it counts, and what its head is to say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import CausalTask, ImageTask, Task
from tests.sweep.helpers import padded, shared_model, tokens_of
from tests.tiny import tiny_batch


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_rows_that_are_no_padding_count(side: str) -> None:
    """None where all do: nothing has to be picked out then."""
    batch = padded(side)
    keep_BT = CausalTask().counts(batch)
    if side == "none":
        assert keep_BT is None
    else:
        assert keep_BT is not None
        assert torch.equal(keep_BT, tokens_of(batch))


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_token_is_predicted_from_those_before_it(side: str) -> None:
    """The last of each sequence says nothing, and neither does padding."""
    batch = padded(side)
    target_BT, kept_BT = CausalTask().targets(batch), tokens_of(batch)
    for b, ids in enumerate(batch["input_ids"].tolist()):
        for t in range(len(ids)):
            asked = t + 1 < len(ids) and bool(kept_BT[b, t]) and bool(kept_BT[b, t + 1])
            assert int(target_BT[b, t]) == (ids[t + 1] if asked else -100)


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_the_reference_is_the_last_token_at_its_own_place(side: str) -> None:
    """One a sequence; a sequence of padding has none."""
    batch = padded(side)
    target_BT = CausalTask().targets(batch, "reference")
    last_B = [int(row.nonzero().max()) for row in tokens_of(batch)]
    assert (target_BT != -100).sum(dim=1).tolist() == [1, 1, 1]
    for b, last in enumerate(last_B):
        assert int(target_BT[b, last]) == int(batch["input_ids"][b, last])
    empty = batch | {"attention_mask": torch.zeros(3, 14)}
    assert not (CausalTask().targets(empty, "reference") != -100).any()


def test_the_head_sees_as_many_columns_as_it_may() -> None:
    """Those that ask for something, each once, in their order."""
    three = 2 * 10 * 3  # three columns of two sequences, ten classes
    target_BT = tiny_batch(2, 9).masked_fill(torch.arange(9) == 4, -100)
    parts = list(CausalTask().parts(target_BT, classes=10, logits=three))
    assert [columns.tolist() for columns, _ in parts if columns is not None] == [
        [0, 1, 2],
        [3, 5, 6],
        [7, 8],
    ]
    for columns, part in parts:
        assert torch.equal(part, target_BT[:, columns])
    assert not list(CausalTask().parts(torch.full((2, 3), -100), classes=10, logits=three))


def test_inputs_of_some_columns_are_their_tokens() -> None:
    """What the head makes of them does not depend on the others."""
    ids_BT, columns_C = tiny_batch(2, 9), torch.tensor([1, 5])
    inputs = {"input_ids": ids_BT, "attention_mask": torch.ones(2, 9)}
    chosen = CausalTask().selected(inputs, columns_C)
    assert list(chosen) == ["input_ids"]
    assert torch.equal(chosen["input_ids"], ids_BT[:, [1, 5]])


def test_a_language_model_has_its_head() -> None:
    """By the name that transformers knows it by."""
    model = shared_model("opt")
    assert CausalTask().head(model) is model.lm_head


# --- images ---


def images(**more: Any) -> dict[str, Any]:
    return {"pixel_values": torch.zeros(2, 3, 8, 8), "labels": torch.tensor([4, 1]), **more}


def test_an_image_has_one_answer_for_all_of_its_rows() -> None:
    """All rows count, and the head sees them together."""
    task = ImageTask()
    assert task.counts(images()) is None
    target_B = task.targets(images())
    assert target_B.tolist() == [4, 1]
    ((columns, part),) = task.parts(target_B, classes=10**9, logits=1)
    assert columns is None
    assert part is target_B
    with pytest.raises(NotImplementedError, match="the head of ImageTask sees all columns"):
        task.selected(images(), torch.tensor([0]))


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (torch.zeros(2, 3, 8, 8), "got a Tensor"),
        ({"input_ids": tiny_batch()}, "got a dict"),
        (images(pixel_values=torch.zeros(3, 8, 8)), r"got \(3, 8, 8\)"),
        (images(pixel_values=torch.zeros(0, 3, 8, 8)), r"got \(0, 3, 8, 8\)"),
    ],
    ids=["tensor", "tokens", "one image", "no image"],
)
def test_what_is_no_batch_of_images_is_refused(batch: Any, got: str) -> None:
    """With the shape that is wanted."""
    message = rf"pixel_values of shape \(B, channels, height, width\).*{got}"
    with pytest.raises(ValueError, match=message):
        ImageTask().checked(batch, nn.Identity())


def test_losses_of_images_need_labels() -> None:
    """There is no next pixel, and no reference code of it."""
    unlabelled = {"pixel_values": torch.zeros(2, 3, 8, 8)}
    with pytest.raises(ValueError, match=r"need labels \(B,\) in every batch.*\['pixel_values'\]"):
        ImageTask().targets(unlabelled)
    with pytest.raises(ValueError, match="labels='all'; got labels='reference'"):
        ImageTask().targets(images(), "reference")


@pytest.mark.parametrize(
    ("task", "name"), [(CausalTask(), "input_ids"), (ImageTask(), "pixel_values")]
)
def test_members_are_counted_by_the_first_input(task: Task, name: str) -> None:
    """Sequences, or images."""
    assert task.windows_of == name
