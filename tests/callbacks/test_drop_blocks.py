"""Which blocks are dropped, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Bias, DropBlocks, GQATaylor, SavePretrained, Wanda, WriteReport
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import INFLUENCE
from lightning_prune.checkpoints.load import load
from lightning_prune.models import CausalLM, LoRA
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.sweep import HiddenStates, influence_sweep, removal_sweep
from tests.lightning.runs import checkpoints, make_data, make_trainer
from tests.tiny import tiny_batch, tiny_model

BLOCKS = 5


def model() -> nn.Module:
    return tiny_model("llama", num_hidden_layers=BLOCKS)


def batches() -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": tiny_batch(4, 12)}]


def gone(plan: Plan, kind: str = "block") -> list[int]:
    return [index for index, kept in plan.blocks(kind).items() if not kept.index_U.numel()]


def measured(measure: str, part: str = "block", span: int = 1) -> dict[int, float]:
    anatomy = Anatomy(model())
    states = HiddenStates(anatomy, batches(), torch.device("cpu"))
    with torch.no_grad():
        if measure == "removal":
            found = removal_sweep(states, anatomy.blocks, 0, part)  # type: ignore[arg-type]
        else:
            found = influence_sweep(states, INFLUENCE[measure], anatomy.blocks, span, part)  # type: ignore[arg-type]
        return {block.index: value for block, value in found}


@pytest.mark.parametrize("measure", ["cosine", "angular", "mse", "mae", "removal"])
@pytest.mark.parametrize(
    ("part", "kind"), [("block", "block"), ("attention", "group"), ("mlp", "neuron")]
)
def test_the_least_influential_go(measure: str, part: Any, kind: str) -> None:
    """By the measure asked for, on the dense model."""
    values = measured(measure, part)
    plan = prune(model(), DropBlocks(count=2, measure=measure, part=part, windows=0), batches())
    assert sorted(gone(plan, kind)) == sorted(sorted(values, key=values.__getitem__)[:2])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_consecutive_blocks_are_measured_together(count: int) -> None:
    """From the input of the first to the output of the last."""
    values = measured("angular", span=count)
    assert len(values) == BLOCKS - count + 1
    first = min(values, key=values.__getitem__)
    plan = prune(model(), DropBlocks(count=count, measure="angular", contiguous=True), batches())
    assert gone(plan) == list(range(first, first + count))


def test_blocks_that_are_named_go_without_calibration() -> None:
    """And a ratio is rounded down."""
    one = model()
    assert gone(prune(one, DropBlocks(indices=[1, 3]))) == [1, 3]
    assert len(Anatomy(one).blocks) == one.config.num_hidden_layers == 3
    assert len(gone(prune(model(), DropBlocks(ratio=0.5), batches()))) == 2


def test_only_the_chosen_range_is_touched() -> None:
    """Also by a span."""
    plan = prune(model(), DropBlocks(count=2, layer_start=1, layer_end=4), batches())
    assert set(gone(plan)) <= {1, 2, 3}
    span = DropBlocks(count=2, measure="mse", contiguous=True, layer_start=2, layer_end=4)
    assert gone(prune(model(), span, batches())) == [2, 3]


def test_what_is_left_is_pruned_further() -> None:
    """Units, then weights, also where an attention or an MLP is gone."""
    for part in ("block", "attention", "mlp"):
        one = model()
        prune(one, DropBlocks(count=2, part=part), batches())  # type: ignore[arg-type]
        prune(one, GQATaylor(ratio=0.4), batches())
        plan = prune(one, Wanda(sparsity=0.5), batches())
        assert plan.removes_anything
        with torch.no_grad():
            assert one(tiny_batch()).logits.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "takes one of count=4, ratio=0.25 and indices"),
        ({"count": 1, "ratio": 0.5}, "got count and ratio"),
        ({"count": 0}, "count=0 must be 1 or more"),
        ({"ratio": 1.0}, r"ratio=1.0 in \(0, 1\)"),
        ({"count": 1, "measure": "norm"}, "measure is one of removal, angular"),
        ({"count": 1, "part": "head"}, "part one of block, attention, mlp"),
        ({"count": 1, "measure": "removal", "contiguous": True}, "contiguous=True takes whole"),
        ({"count": 5}, "drops 5 of 5 blocks that have what is asked for; 1 to 4 can go"),
        ({"count": 6, "part": "mlp"}, "1 to 5 can go"),
        ({"ratio": 0.1}, "drops 0 of 5"),
        ({"indices": [1, 5]}, "names blocks without block, or outside"),
        ({"indices": [1, 1]}, "drops 2 of 5"),
    ],
    ids=str,
)
def test_what_cannot_be_dropped_is_refused(settings: dict[str, Any], message: str) -> None:
    """Before anything runs."""
    with pytest.raises(ValueError, match=message):
        prune(model(), DropBlocks(**settings), batches())


def test_a_run_goes_on_and_reports_what_is_gone(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """A corrected cut, then a block and the attention of another, then LoRA; started twice."""

    def fit(steps: int, **settings: Any) -> CausalLM:
        module = CausalLM(str(model_folder), adapter=LoRA(r=2), learning_rate=1e-2)
        methods = [
            GQATaylor(ratio=0.4, repair=Bias()),
            DropBlocks(indices=[1]),
            DropBlocks(indices=[1], part="attention"),
        ]
        others = [WriteReport(speed=False), SavePretrained(), checkpoints(tmp_path)]
        trainer = make_trainer(tmp_path, *methods, *others, steps=steps)
        trainer.fit(module, make_data(text_file), **settings)
        return module

    first = fit(2)
    again = fit(4, ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"))
    assert first.plan is not None
    assert again.plan is not None
    assert first.plan.fingerprint() == again.plan.fingerprint()
    blocks = json.loads((tmp_path / "report.json").read_text())["blocks"]
    assert [block["index"] for block in blocks] == [0, 1, 2]
    assert [bool(block["heads"]) for block in blocks] == [True, False, False]
    assert [bool(block["width"]) for block in blocks] == [True, False, True]
    assert blocks[1]["dense_heads"] == 8
    recovered, plan = load(tmp_path / "recovered"), Plan.load(tmp_path / "recovered")
    assert plan.dropped == {1}
    assert gone(plan, "group") == [2]
    assert recovered.state_dict().keys() >= plan.corrected.keys()
    assert [block.heads > 0 for block in Anatomy(recovered).blocks] == [True, False]
