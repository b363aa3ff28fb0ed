"""The conductor: what it takes, in which order it acts, and what it leaves after an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_prune import GQATaylor, Magnitude, Plan, Wanda, prune
from lightning_prune.allocation import Allocation
from lightning_prune.anatomy import Anatomy
from lightning_prune.pipeline.provenance import fingerprint
from lightning_prune.sweep import placement
from tests.contract.cases import assert_same_state, batches, even_model, state
from tests.sweep.helpers import counting_blocks, traces
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


def test_shares_that_remove_nothing_are_an_error() -> None:
    """A run that changed nothing does not pass for a success."""
    model = even_model("llama")
    before = state(model)
    with pytest.raises(ValueError, match=r"Magnitude\(sparsity=0.5.*removes nothing"):
        prune(model, Magnitude(sparsity=0.5, allocation=Slope(values=[0, 0, 0])))
    assert_same_state(model, before)


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


def test_provenance_is_about_the_model_as_it_was() -> None:
    """An uneven model has another type afterwards; the plan names the one that it was made for."""
    model = tiny_model("llama")
    plan = prune(model, GQATaylor(ratio=0.5, layer_start=1), batches())
    assert model.config.model_type == "pruned_llama"
    assert plan.provenance["model_type"] == "llama"
    assert plan.provenance["model"] == "LlamaForCausalLM"


class Loans:
    """Watches which blocks are on the device."""

    def __init__(self, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away: set[int] = set()
        self.most = 0
        blocks = {block.module: block.index for block in Anatomy(model).blocks}
        lent = placement.on_device

        @contextmanager
        def watched(modules: Any, device: torch.device) -> Iterator[None]:
            leaving = {blocks[module] for module in modules if module in blocks}
            self.away |= leaving
            self.most = max(self.most, len(self.away))
            try:
                with lent(modules, device):
                    yield
            finally:
                self.away -= leaving

        monkeypatch.setattr(placement, "on_device", watched)


@pytest.mark.parametrize(
    "method",
    [Wanda(sparsity=0.5), GQATaylor(ratio=0.25, offload=True), Magnitude(sparsity=0.5)],
    ids=str,
)
def test_blocks_go_to_the_device_one_at_a_time(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block comes home before the next one leaves."""
    model = even_model("llama")
    loans = Loans(model, monkeypatch)
    prune(model, method, batches(), device="cpu:0")
    assert loans.most == 1
    assert not loans.away


AMOUNT: dict[Any, dict[str, float]] = {Wanda: {"sparsity": 0.5}, GQATaylor: {"ratio": 0.5}}


@pytest.mark.parametrize("cls", AMOUNT)
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_the_middle_leaves_nothing_behind(
    cls: Any, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment it is caught: no hooks, no forwards, modes as before, blocks at home."""

    class Broken(cls):  # type: ignore[misc]
        def score(self, block: Any, evidence: Any) -> Any:
            if block.index == failing:
                raise RuntimeError("out of memory")
            return super().score(block, evidence)

    model = even_model("llama").train()
    before = traces(model)
    loans = Loans(model, monkeypatch)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        prune(model, Broken(**AMOUNT[cls]), batches(), device="cpu:0")
    assert traces(model) == before
    assert loans.most
    assert not loans.away
    assert caught.tb is not None  # the frames that raised are still alive


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


# --- fingerprint ---


def test_a_fingerprint_is_the_same_for_the_same_model() -> None:
    """Whatever the mode; no randomness in it."""
    assert fingerprint(even_model("llama")) == fingerprint(even_model("llama").train())


def test_a_fingerprint_tells_models_apart() -> None:
    """By seed, type, shape, and by what pruning did."""
    model = even_model("llama")
    found = {
        fingerprint(model),
        fingerprint(even_model("llama", seed=1)),
        fingerprint(even_model("llama", dtype=torch.bfloat16)),
        fingerprint(even_model("llama", intermediate_size=20)),
        fingerprint(even_model("qwen3")),
    }
    prune(model, Magnitude(sparsity=0.1))
    found.add(fingerprint(model))
    assert len(found) == 6


def test_a_fingerprint_sees_every_column() -> None:
    """Elimination leaves the first column of every weight as it was."""
    model = even_model("llama", hidden_size=64)
    before = fingerprint(model)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[:, 1:] *= -3
    assert fingerprint(model) != before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("cls", AMOUNT)
def test_a_model_on_the_cpu_is_pruned_on_the_gpu(cls: Any, offload: bool) -> None:
    """Block by block; it stays on the CPU, and the scores are those of the CPU."""
    model, other = even_model("llama"), even_model("llama")
    settings = AMOUNT[cls] | {"keep_scores": True, "layer_end": 1}
    here = prune(model, cls(**settings), batches())
    there = prune(other, cls(offload=offload, **settings), batches(), device="cuda")
    assert {p.device.type for p in other.parameters()} == {"cpu"}
    for key in here._scores:
        torch.testing.assert_close(there._scores[key], here._scores[key], rtol=1e-3, atol=1e-3)


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


@pytest.mark.parametrize("method", ["wanda", Wanda])
def test_what_is_no_method_is_refused(method: Any) -> None:
    """A name or a class is not a method."""
    with pytest.raises(TypeError, match="prune takes a model and a method"):
        prune(tiny_model("llama"), method, batches())
