"""What is said beforehand of a pruning: memory, passes, disk; without reading a weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import (
    AFR,
    FLAP,
    BlockFit,
    CausalLM,
    LeastSquares,
    Magnitude,
    Progressive,
    ResidualFit,
    SparseGPT,
    Taylor,
    TextData,
    Wanda,
    WandaSP,
    prune,
    save,
    surgery,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints import reader
from lightning_prune.report.files import print_document
from lightning_prune.report.resources import Resources, memory_text, resources_document
from lightning_prune.studies import rates
from lightning_prune.studies.resources import plan_resources
from tests.tiny import tiny_batch, tiny_model, uneven_plan

DATA = {"nsamples": 8, "length": 32, "batch_size": 4}
GIVEN: dict[str, Any] = {"operations": 1e9, "read": 1e9}


def planned(folder: Path, method: Any, placement: Any = "memory", **how: Any) -> Resources:
    data = TextData("builtin", **DATA)
    return plan_resources(CausalLM(str(folder), placement=placement), data, method, **GIVEN | how)


def saved(folder: Path, blocks: int) -> Path:
    return save(tiny_model("llama", num_hidden_layers=blocks), folder)


def of(resources: Resources, phase: str) -> Any:
    return next(p for p in resources.phases if p.name == phase)


def test_what_wanda_holds_while_it_decides_is_the_sum_of_its_parts(model_folder: Path) -> None:
    """On a device: a block, hidden states, norms, the last block's decision and this one's."""
    resources = planned(model_folder, Wanda(sparsity=0.5), device="cuda", device_memory=10**9)
    block = Anatomy(CausalLM(str(model_folder)).origin.model("auto", None)).blocks[0]
    weights = norms = 0
    for sites in block.inputs().values():
        norms += 4 * sites[0].module.in_features
        for site in sites:
            weights += site.module.out_features * site.module.in_features
    hidden = 8 * 32 * block.sites[0].module.in_features * 4
    held = of(resources, "Wanda: decisions").device
    assert held["weights"] == sum(4 * p.numel() for p in block.module.parameters())
    assert held["hidden states"] == hidden
    assert held["evidence"] == norms
    assert held["scores and decisions"] == (4 + 1) * weights + 6 * weights
    assert resources.passes == {"forward": 2.0, "backward": 0.0}
    assert resources.disk["plan"] == 3 * weights // 8


def test_memory_grows_with_depth_only_where_the_model_is_in_it(tmp_path: Path) -> None:
    """In its files, what a block takes is all there is, but for a bit for each masked weight."""
    few, many = saved(tmp_path / "few", 2), saved(tmp_path / "many", 6)
    for method in (Wanda(sparsity=0.5), SparseGPT(sparsity=0.5)):
        name = f"{type(method).__name__}: decisions"
        inside = [of(planned(folder, method), name).host for folder in (few, many)]
        assert inside[1]["changed weights"] == 3 * inside[0]["changed weights"]
        outside = [dict(of(planned(f, method, "checkpoint"), name).host) for f in (few, many)]
        assert 2.5 <= outside[1].pop("plan") / outside[0].pop("plan") <= 3.5
        assert outside[0] == outside[1]
        assert "model" not in outside[0]


def test_a_pass_back_block_by_block_keeps_the_inputs_of_all_blocks(tmp_path: Path) -> None:
    """And so takes more the deeper the model, wherever its weights are."""
    few, many = saved(tmp_path / "few", 2), saved(tmp_path / "many", 6)
    method = Taylor(ratio=0.3, repair=None)
    hidden = [
        of(planned(folder, method, "checkpoint"), "Taylor: passes").host["hidden states"]
        for folder in (few, many)
    ]
    assert hidden[1] * 4 == hidden[0] * 8  # the inputs, the last output, and the gradient
    assert planned(many, method, "checkpoint").passes == {"forward": 2.0, "backward": 1.0}
    assert planned(many, method).passes == {"forward": 1.0, "backward": 1.0}  # the whole at once
    both = planned(many, AFR(ratio=0.25, repair=None), "checkpoint")
    assert both.passes == {"forward": 3.0, "backward": 2.0}  # the inputs of blocks are made once


def test_training_blocks_takes_copies_of_one_span_and_passes_by_its_steps(
    model_folder: Path,
) -> None:
    """Of two batches one is held out and judged by five times; a step is half of a pass."""
    method = Wanda(sparsity=0.5, block_fit=BlockFit(steps=4, span=2))
    resources = planned(model_folder, method, device="cuda", device_memory=10**9)
    model = CausalLM(str(model_folder)).origin.model("auto", None)
    block = sum(p.numel() for p in Anatomy(model).blocks[0].module.parameters())
    training = of(resources, "BlockFit: training")
    assert training.device["training"] == 6 * 4 * 2 * block
    assert training.host["dense blocks"] == 4 * block * len(Anatomy(model).blocks)
    assert resources.passes == {"forward": 2 + 2 + 2 + 2.5, "backward": 2.0}
    method = Wanda(sparsity=0.5, block_fit=BlockFit(steps=4, target="logits"))
    resources = planned(model_folder, method, device="cuda", device_memory=10**9)
    training, blocks = of(resources, "BlockFit: training"), len(Anatomy(model).blocks)
    assert training.device["training"] == 6 * 4 * blocks * block
    assert resources.passes == {"forward": 2 + 2 + 2 * 2 + 2.5, "backward": 2.0}


def test_neither_weights_nor_shards_are_read(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config is enough, and an index whose shards are elsewhere does no harm."""
    expected = planned(model_folder, Wanda(sparsity=0.5))
    shutil.copy(model_folder / "config.json", tmp_path)

    def refuse(*_: Any) -> None:
        raise AssertionError("a weight is read")

    monkeypatch.setattr(reader.TensorReader, "tensor", refuse)
    monkeypatch.setattr(reader.TensorReader, "rows", refuse)
    assert planned(tmp_path, Wanda(sparsity=0.5)).phases == expected.phases
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert planned(tmp_path, Wanda(sparsity=0.5)).phases == expected.phases
    assert planned(model_folder, Wanda(sparsity=0.5)).phases == expected.phases


def test_a_model_of_uneven_blocks_is_planned_for(tmp_path: Path) -> None:
    """With the widths that its config gives each."""
    model = tiny_model("llama")
    dense = planned(save(model, tmp_path / "dense"), Wanda(sparsity=0.5))
    plan = uneven_plan(model)
    surgery.apply(Anatomy(model), plan)
    resources = planned(save(model, tmp_path / "uneven", plan), Wanda(sparsity=0.5))
    assert resources.parameters == sum(p.numel() for p in model.parameters())
    most = [r.peak_host - r.libraries for r in (resources, dense)]
    assert most[0] < most[1]


def test_cuts_and_methods_in_a_row_leave_smaller_models(model_folder: Path) -> None:
    """A quarter of the units' parameters, and zeros that take as much room as before."""
    cut = planned(model_folder, FLAP(ratio=0.25))
    both = planned(model_folder, [FLAP(ratio=0.25), Wanda(sparsity=0.5)])
    assert 0.7 < cut.disk["pruned model"] / cut.weights < 0.9
    assert both.disk["pruned model"] == cut.disk["pruned model"]
    assert {"plan-1/plan.json", "plan-2/plan.json"} <= set(both.files)
    rounds = planned(model_folder, Progressive(method=FLAP(ratio=0.25), rounds=3))
    assert rounds.passes["forward"] == 3 * cut.passes["forward"]


def test_processes_share_the_text_and_speak_to_each_other(model_folder: Path) -> None:
    """Each has a part of the hidden states; a node has its processes' memory together."""
    method = SparseGPT(sparsity=0.5)
    one, four = planned(model_folder, method), planned(model_folder, method, processes=2, nodes=2)
    name = "SparseGPT: passes"
    assert of(four, name).host["hidden states"] * 2 == of(one, name).host["hidden states"]
    assert one.sent == 0
    assert four.sent > 0
    assert four.host_of_node == four.peak_host


def test_it_says_what_would_make_it_fit(model_folder: Path) -> None:
    """With what is free in bytes."""
    method = FLAP(ratio=0.25)
    peak = planned(model_folder, method, device="cuda", device_memory=10**9).peak_device
    fits = planned(model_folder, method, device="cuda", device_memory=peak)
    assert fits.advice[0].startswith("It fits: ")
    less = planned(model_folder, method, device="cuda", device_memory=peak - 1)
    assert less.advice[0].startswith("It does not fit: ")
    assert "offload: true" in less.advice[0]
    assert "repair: LeastSquares with trust 0" in less.advice[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processes": 1, "nodes": 2}, "1 processes on 2 nodes"),
        ({"method": []}, "there is no method to plan for"),
        ({"data": object()}, "object does not say how much calibration text there is"),
        ({"data": TextData(length=512)}, "length=512 is more than the 64 tokens"),
        ({"method": Wanda(pattern="3:7")}, "3:7 needs input features divisible by 7"),
        ({"operations": -1.0}, "operations=-1.0 is not allowed: give a number above 0"),
        ({"host_memory": 0}, "host_memory=0 is not allowed: give a number above 0"),
    ],
)
def test_what_cannot_be_planned_is_said(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """In one line."""
    module = CausalLM(str(saved(tmp_path / "model", 2)))
    asked = {"method": Wanda(sparsity=0.5), "data": TextData(**DATA)} | change
    data, method = asked.pop("data"), asked.pop("method")
    with pytest.raises(ValueError, match=message):
        plan_resources(module, data, method, **GIVEN | asked)


def test_methods_without_text_need_none(model_folder: Path) -> None:
    """Nothing passes through the model."""
    module = CausalLM(str(model_folder))
    resources = plan_resources(module, object(), Magnitude(sparsity=0.5), **GIVEN)
    assert resources.passes == {"forward": 0.0, "backward": 0.0}


def test_it_is_printed_and_written(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Peaks, passes, time and files."""
    resources = planned(model_folder, WandaSP(ratio=0.3), device="cuda", processes=2)
    document = resources_document(resources)
    print_document(document)
    printed = capsys.readouterr().out
    for word in ("device", "host, a process", "passes forward", "network", "plan/plan.json"):
        assert word in printed
    assert document.value["peak_device"] == resources.peak_device
    assert memory_text(2**30) == "1.00 GiB"
    assert memory_text(0) == "0 B"


def test_two_rates_are_measured(tmp_path: Path) -> None:
    """Of products, and of the largest file; none of files that are not there."""
    assert rates.arithmetic_rate(torch.device("cpu"), torch.float32) > 0
    (tmp_path / "file").write_bytes(bytes(1000))
    assert (rates.reading_rate([tmp_path / "file", tmp_path / "gone"]) or 0) > 0
    assert rates.reading_rate([]) is None


@pytest.mark.parametrize("method", [SparseGPT(sparsity=0.5), ResidualFit(sparsity=0.5)])
def test_a_plan_is_made_before_the_same_method_prunes(method: Any, tmp_path: Path) -> None:
    """What is planned for is left as it is."""
    folder = saved(tmp_path / "model", 2)
    planned(folder, method)
    model = tiny_model("llama", num_hidden_layers=2)
    assert prune(model, method, [{"input_ids": tiny_batch()}]).removes_anything
    assert isinstance(LeastSquares().working(8, 8, 0.5), float)
