"""Zeros counted in files: right numbers, patterns found, plans compared, bad folders refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_prune.analysis.zeros import sparsity
from lightning_prune.anatomy import Anatomy
from lightning_prune.export.hf import save
from lightning_prune.plan import Plan
from lightning_prune.selection import Pattern, keep_n_of_m
from lightning_prune.surgery import apply_masks, shrink
from tests.tiny import tiny_model, uneven_plan

MATRIX = "model.layers.1.mlp.up_proj.weight"


def masked(pattern: str, only: str = "") -> tuple[torch.nn.Module, Plan]:
    """A model whose matrices hold to a pattern (those whose name contains `only`), and the plan."""
    model = tiny_model("llama", intermediate_size=24, head_dim=8)
    plan = Plan()
    for block in Anatomy(model).blocks:
        for site in block.sites:
            if only in site.name:
                keep_OI = keep_n_of_m(site.module.weight.detach().abs(), Pattern.parse(pattern))
                plan.set_mask(site.weight_name, keep_OI)
    apply_masks(model, plan)
    return model, plan


def test_zeros_are_counted_where_they_are(tmp_path: Path) -> None:
    """Per matrix, block, kind, over the Linears and over everything; rows at their extremes."""
    model = tiny_model("llama")
    weight = model.get_submodule("model.layers.1.mlp.up_proj").weight  # type: ignore[union-attr]
    with torch.no_grad():
        weight[0] = 0  # type: ignore[index]
        weight[3, :8] = 0  # type: ignore[index]
        model.get_submodule("model.norm").weight[:5] = 0  # type: ignore[index, union-attr]
    report = sparsity(save(model, tmp_path / "model"))
    (one,) = report.select(block=1, kind="mlp.up_proj")
    assert (one.name, one.shape, one.zeros) == (MATRIX, (22, 32), 40)
    assert (one.row_min, one.row_max) == (0, 1)
    linears = sum(s.module.weight.numel() for b in Anatomy(model).blocks for s in b.sites)
    parameters = sum(p.numel() for p in model.parameters())
    assert report.linear_sparsity == 40 / linears
    assert report.total_sparsity == 45 / parameters
    assert report.parameters == parameters
    assert report.pattern is None
    assert report.plan is None
    assert report.kinds[0] == "mlp.down_proj"
    assert len(report.matrices) == 3 * 7


@pytest.mark.parametrize(("pattern", "others"), [("1:4", 1.0), ("2:4", 1.0), ("4:8", None)])
def test_a_pattern_is_found_and_the_sparsest_named(
    pattern: str, others: float | None, tmp_path: Path
) -> None:
    """1:4 also holds to 2:4, and 2:4 to 4:8; neither the other way round."""
    model, _ = masked(pattern)
    report = sparsity(save(model, tmp_path / "model"))
    assert report.pattern == pattern
    assert report.linear_sparsity == pytest.approx(Pattern.parse(pattern).sparsity)
    assert report.compliance("4:8") == 1
    assert (report.compliance("2:4") == 1) is (others == 1.0)


def test_a_pattern_in_some_matrices_is_not_everywhere(tmp_path: Path) -> None:
    """Each matrix knows its own share of groups."""
    model, _ = masked("2:4", only="up_proj")
    report = sparsity(save(model, tmp_path / "model"), ["2:4"])
    assert report.pattern is None
    assert {m.kind for m in report.matrices if m.patterns["2:4"] == 1} == {"mlp.up_proj"}
    assert 0 < report.compliance("2:4") < 1


def test_a_pattern_that_does_not_divide_a_width_holds_nowhere_in_it(tmp_path: Path) -> None:
    """22 neurons are no groups of four."""
    report = sparsity(save(tiny_model("llama"), tmp_path / "model"))
    (down,) = report.select(block=0, kind="mlp.down_proj")
    assert down.patterns == {}


def test_shards_and_one_file_say_the_same(tmp_path: Path) -> None:
    """Shards are found by the index, and a file by itself is read too."""
    model, _ = masked("2:4")
    whole = sparsity(save(model, tmp_path / "whole"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")  # type: ignore[operator]
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert sparsity(tmp_path / "shards").to_dict()["kinds"] == whole.to_dict()["kinds"]
    assert sparsity(tmp_path / "whole" / "model.safetensors").matrices == whole.matrices


def test_uneven_blocks_are_counted_by_their_own_shapes(tmp_path: Path) -> None:
    """A folder that needs its own code is read without it."""
    model = tiny_model("llama")
    shrink(Anatomy(model), uneven_plan(model))
    report = sparsity(save(model, tmp_path / "model", uneven_plan(tiny_model("llama"))))
    assert [m.shape for m in report.select(kind="mlp.up_proj")] == [(22, 32), (3, 32), (9, 32)]
    assert report.plan is None  # its plan has no masks


def test_large_matrices_are_read_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time give the same counts, and agree with the plan the same."""
    model, plan = masked("2:4")
    folder = save(model, tmp_path / "model", plan)
    whole = sparsity(folder)
    monkeypatch.setattr("lightning_prune.analysis.zeros.CHUNK", 100)
    assert sparsity(folder) == whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_every_floating_type_is_counted(dtype: torch.dtype, tmp_path: Path) -> None:
    """Negative zeros are zeros too."""
    weight_OI = torch.tensor([[0.0, -0.0, 1.0, -2.0], [3.0, 0.0, 0.0, 0.0]]).to(dtype)
    save_file({"model.layers.0.fc1.weight": weight_OI}, tmp_path / "model.safetensors")
    (one,) = sparsity(tmp_path).matrices
    assert (one.zeros, one.row_min, one.row_max) == (5, 0.5, 0.75)
    assert one.patterns == {"1:4": 0.5, "2:4": 1.0}


def test_packed_integers_are_not_taken_for_weights(tmp_path: Path) -> None:
    """Zeros of packed numbers mean nothing."""
    tensors = {
        "model.layers.0.fc1.weight": torch.zeros(4, 8, dtype=torch.uint8),
        "model.layers.0.fc2.weight": torch.ones(4, 8),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    report = sparsity(tmp_path)
    assert (report.packed, report.parameters, report.zeros) == (32, 32, 0)
    assert [m.kind for m in report.matrices] == ["fc2"]


# --- the plan beside it ---


def test_a_plan_that_was_applied_agrees(tmp_path: Path) -> None:
    """Zeros that the plan keeps are counted beside, and are no disagreement."""
    model, plan = masked("2:4")
    keep_OI = plan.mask(MATRIX)
    place = keep_OI.nonzero()[0].tolist()
    with torch.no_grad():
        model.get_parameter(MATRIX)[place[0], place[1]] = 0
    check = sparsity(save(model, tmp_path / "model", plan)).plan
    assert check is not None
    assert (check.agrees, check.matrices, check.removed_nonzero) == (True, 21, 0)
    assert check.kept_zero == 1


def test_weights_that_came_back_are_told(tmp_path: Path) -> None:
    """As after merging an adapter without its masks."""
    model, plan = masked("2:4")
    with torch.no_grad():
        model.get_parameter(MATRIX).add_(1.0)
    check = sparsity(save(model, tmp_path / "model", plan)).plan
    assert check is not None
    assert not check.agrees
    assert check.removed_nonzero == 24 * 32 // 2


def test_a_plan_of_another_model_cannot_be_compared(tmp_path: Path) -> None:
    """It is said why, and the zeros are counted all the same."""
    model, plan = masked("2:4")
    plan.set_mask("model.layers.9.fc1.weight", torch.ones(2, 2, dtype=torch.bool))
    check = sparsity(save(model, tmp_path / "model", plan)).plan
    assert check is not None
    assert not check.agrees
    assert "model.layers.9.fc1.weight" in check.problem
    plan.set_mask(MATRIX, torch.ones(2, 2, dtype=torch.bool))
    check = sparsity(save(model, tmp_path / "model", plan)).plan
    assert check is not None
    assert "shape (2, 2), the weight (24, 32)" in check.problem


def test_a_damaged_plan_does_not_hide_the_zeros(tmp_path: Path) -> None:
    """The report has the counts and says that the plan cannot be read."""
    model, plan = masked("2:4")
    folder = save(model, tmp_path / "model", plan)
    (folder / "plan.json").write_text("{")
    report = sparsity(folder)
    assert report.pattern == "2:4"
    assert report.plan is not None
    assert "damaged" in report.plan.problem


# --- what cannot be read ---


def test_bad_folders_are_refused_with_the_reason(tmp_path: Path) -> None:
    """No folder, no weights, pickles only, a missing shard, a cut file."""
    with pytest.raises(FileNotFoundError, match="no model at"):
        sparsity(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="has no weights"):
        sparsity(tmp_path)
    model, _ = masked("2:4")
    folder = save(model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, truncated"):
        sparsity(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="is pickled"):
        sparsity(folder)
    shutil.rmtree(folder)
    model.save_pretrained(folder, max_shard_size="20KB")  # type: ignore[operator]
    sorted(folder.glob("*.safetensors"))[0].unlink()
    with pytest.raises(FileNotFoundError, match="is named in"):
        sparsity(folder)
    (folder / "model.safetensors.index.json").write_text('{"weights": []}')
    with pytest.raises(ValueError, match="index.json is damaged"):
        sparsity(folder)


def test_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(ValueError, match="not of the form N:M"):
        sparsity(tmp_path, ["half"])


def test_json_holds_what_the_table_holds(tmp_path: Path) -> None:
    """Totals, blocks, kinds and matrices, in plain numbers."""
    model, plan = masked("2:4")
    found = json.loads(json.dumps(sparsity(save(model, tmp_path / "m", plan)).to_dict()))
    assert found["pattern"] == "2:4"
    assert found["linear"]["sparsity"] == 0.5
    assert found["blocks"]["2"]["sparsity"] == 0.5
    assert found["kinds"]["self_attn.q_proj"]["row_min"] == 0.5
    assert found["matrices"][0]["patterns"] == {"1:4": 0.0, "2:4": 1.0, "4:8": 1.0}
    assert found["plan"]["agrees"] is True
    assert load_file(tmp_path / "m" / "model.safetensors")
