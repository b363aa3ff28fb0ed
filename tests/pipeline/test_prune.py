"""The conductor: what it takes, in which order it acts, and what it leaves after an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_prune import GQATaylor, Magnitude, Plan, Wanda, prune
from lightning_prune.allocation import Allocation
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.sweep.helpers import counting_blocks
from tests.tiny import tiny_batch, tiny_model


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    """Has no length, as a streamed data set."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        yield from ({"input_ids": row} for row in tiny_batch(4))


@pytest.mark.parametrize(
    "data",
    [
        lambda: tuple(batches()),
        lambda: iter(batches()),
        lambda: (batch for batch in batches()),
        lambda: DataLoader(Stream(), batch_size=2),
        lambda: [{"input_ids": b["input_ids"], "labels": b["input_ids"]} for b in batches()],
        lambda: [b | {"attention_mask": torch.ones(2, 12)} for b in batches()],
        lambda: [b | {"attention_mask": torch.ones(2, 12, dtype=torch.bool)} for b in batches()],
    ],
    ids=["tuple", "iterator", "generator", "loader", "labels", "float mask", "bool mask"],
)
@pytest.mark.parametrize("method", [Wanda(sparsity=0.5), GQATaylor(ratio=0.25)], ids=str)
def test_batches_may_be_any_iterable(method: Any, data: Any) -> None:
    """Read once, in whatever form they come."""
    expected, model = even_model("llama"), even_model("llama")
    prune(expected, method, batches())
    prune(model, method, data())
    assert_same_state(model, state(expected))


def test_the_plan_is_what_was_done() -> None:
    """What comes back is applied already: weights are zero where the masks say so."""
    model = even_model("llama")
    plan = prune(model, Wanda(sparsity=0.5), batches())
    assert isinstance(plan, Plan)
    for name in plan.mask_names:
        assert torch.equal(model.state_dict()[name] != 0, plan.mask(name))


class Slope(Allocation):
    """A share of its own for every block."""

    values: Sequence[float]

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        assert len(sizes) == len(self.values)
        return list(self.values)


def test_every_block_gets_its_share() -> None:
    """Of weights and of units; blocks that are not pruned have none."""
    model = even_model("llama")
    plan = prune(model, Magnitude(sparsity=0.5, allocation=Slope(values=[0.25, 0.5, 0.75])))
    for index, share in enumerate((0.25, 0.5, 0.75)):
        assert plan.sparsity(f"model.layers.{index}.mlp.up_proj.weight") == share
    method = GQATaylor(
        ratio=0.5, attention=False, layer_start=1, allocation=Slope(values=[0.25, 0.75])
    )
    plan = prune(even_model("llama"), method, batches())
    assert {i: kept.removed for i, kept in plan.blocks("neuron").items()} == {1: 6, 2: 18}


def test_methods_without_calibration_run_no_block() -> None:
    """Magnitude looks at weights only, whether batches are given or not."""
    model = even_model("llama")
    with counting_blocks(model) as seen:
        prune(model, Magnitude(sparsity=0.5), batches())
    assert seen == []


def test_wanda_takes_two_passes_but_for_the_last_block() -> None:
    """2L - 1 block passes for L blocks."""
    model = even_model("llama")
    with counting_blocks(model) as seen:
        prune(model, Wanda(sparsity=0.5), batches(size=4))
    assert seen == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("method", [Wanda(sparsity=0.5), GQATaylor(ratio=0.25)], ids=str)
def test_dropout_is_off_meanwhile(method: Any) -> None:
    """A model in training mode is judged as it answers."""
    training, evaluated = (even_model("opt", dropout=0.5) for _ in range(2))
    prune(training.train(), method, batches())
    prune(evaluated, method, batches())
    assert training.training
    assert_same_state(training, state(evaluated))


def test_wanda_sees_the_blocks_before_it_pruned() -> None:
    """Scores of block 1 are those of a model whose block 0 was pruned, in one run or in two."""
    at_once, in_steps = even_model("llama"), even_model("llama")
    prune(at_once, Wanda(sparsity=0.5), batches())
    for block in range(3):
        prune(in_steps, Wanda(sparsity=0.5, layer_start=block, layer_end=block + 1), batches())
    assert_same_state(in_steps, state(at_once))


def test_gqa_taylor_decides_on_the_dense_model() -> None:
    """Every block is scored before any is changed."""
    method = GQATaylor(ratio=0.5, keep_scores=True)
    whole = prune(even_model("llama"), method, batches())
    for block in range(3):
        method = GQATaylor(ratio=0.5, layer_start=block, layer_end=block + 1, keep_scores=True)
        alone = prune(even_model("llama"), method, batches())
        for kind in ("group", "neuron"):
            torch.testing.assert_close(alone.scores(kind, block), whole.scores(kind, block))


def test_a_plan_is_applied_by_the_method_that_made_it() -> None:
    """Wanda does not cut what GQATaylor planned to."""
    method = GQATaylor(ratio=0.25, repair=None)
    plan = prune(tiny_model("llama"), method, [{"input_ids": tiny_batch()}])
    model = tiny_model("llama")
    with pytest.raises(ValueError, match=r"made by GQATaylor; apply it with GQATaylor\(plan="):
        prune(model, Wanda(plan=plan))
    prune(model, GQATaylor(plan=plan))
    assert model.model.layers[0].mlp.up_proj.out_features == 17


def test_ignored_tokens_do_not_count() -> None:
    """A token labelled -100 is left out of the statistics, as padding is."""
    short, ids = tiny_batch(tokens=8), tiny_batch(tokens=12)
    ids[:, :8] = short
    labels = ids.clone()
    labels[:, 8:] = -100
    plans = [
        prune(tiny_model("llama"), Wanda(sparsity=0.5, keep_scores=True), [batch])
        for batch in ({"input_ids": short}, {"input_ids": ids, "labels": labels})
    ]
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(plans[0].scores("weight", name), plans[1].scores("weight", name))


def test_shares_that_remove_nothing_are_an_error() -> None:
    """A run that changed nothing does not pass for a success."""
    model = even_model("llama")
    before = state(model)
    with pytest.raises(ValueError, match=r"Magnitude\(sparsity=0.5.*removes nothing"):
        prune(model, Magnitude(sparsity=0.5, allocation=Slope(values=[0, 0, 0])))
    assert_same_state(model, before)
