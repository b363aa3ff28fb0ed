"""A plan says what stays: in memory, on disk, and after damage."""

from __future__ import annotations

import json
import os
import shutil
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lightning_prune.plan.file
from lightning_prune.plan import Plan, joined

SHAPES = [(1, 1), (1, 7), (8, 1), (3, 5), (2, 8), (9, 31)]


def random_mask(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


def full_plan(seed: int = 0) -> Plan:
    """Masks of odd shapes, both kinds of units, all kinds of scores, provenance."""
    plan = Plan({"model": "müde", "arguments": {"sparsity": 0.5, "list": [1, None, True]}})
    for rows, columns in SHAPES:
        plan.set_mask(f"w.{rows}.{columns}", random_mask(rows, columns, seed=seed))
    plan.set_kept("neuron", 0, torch.tensor([0, 5, 21]), 22)
    plan.set_kept("neuron", 2, torch.arange(22), 22)
    plan.set_kept("group", 11, torch.tensor([3]), 4)
    plan.set_scores("weight", "w.3.5", torch.arange(15.0).view(3, 5))
    plan.set_scores("neuron", 0, torch.arange(22.0))
    plan.set_scores("group", 11, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    return plan


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_come_back_as_they_were_set(shape: tuple[int, int]) -> None:
    """Packed to bits and unpacked, whatever the number of entries."""
    keep_OI = random_mask(*shape)
    plan = Plan()
    plan.set_mask("w", keep_OI)
    assert plan.mask("w").dtype == torch.bool
    assert torch.equal(plan.mask("w"), keep_OI)
    assert plan.mask_shape("w") == keep_OI.shape


def test_masks_may_lie_transposed_in_memory() -> None:
    """The layout of the mask does not matter."""
    plan, keep_OI = Plan(), random_mask(5, 3).T
    plan.set_mask("w", keep_OI)
    assert torch.equal(plan.mask("w"), keep_OI)


def test_a_plan_owns_what_it_was_given() -> None:
    """Later changes to the tensors do not reach the plan."""
    plan, kept, score = Plan(), torch.tensor([1, 2]), torch.ones(3)
    plan.set_kept("neuron", 0, kept, 3)
    plan.set_scores("neuron", 0, score)
    kept += 5
    score += 5
    assert plan.kept("neuron", 0).tolist() == [1, 2]
    assert plan.scores("neuron", 0).tolist() == [1, 1, 1]


def test_blocks_may_share_one_tensor(tmp_path: Path) -> None:
    """One index or score tensor for several blocks, and parts of one table, can be saved."""
    plan, kept, table = Plan(), torch.tensor([0, 2]), torch.arange(6.0).view(2, 3)
    for block in (0, 1):
        plan.set_kept("neuron", block, kept, 3)
        plan.set_scores("neuron", block, table[block])
    loaded = Plan.load(plan.save(tmp_path))
    assert loaded.kept("neuron", 1).tolist() == [0, 2]
    assert loaded.scores("neuron", 1).tolist() == [3, 4, 5]


def test_sparsity_is_the_fraction_of_zeros() -> None:
    """Of one weight, and of all weights by their size."""
    plan = Plan()
    assert plan.sparsity() == 0
    plan.set_mask("a", torch.tensor([[True, False, False, False]]))
    plan.set_mask("b", torch.ones(3, 4, dtype=torch.bool))
    assert plan.sparsity("a") == 0.75
    assert plan.sparsity("b") == 0
    assert plan.sparsity() == 3 / 16


def test_removes_anything_sees_weights_and_units() -> None:
    """One weight or one unit is enough; a plan that keeps all removes nothing."""
    plan = Plan()
    plan.set_mask("a", torch.ones(2, 2, dtype=torch.bool))
    plan.set_kept("neuron", 0, torch.arange(3), 3)
    assert not plan.removes_anything
    plan.set_mask("b", torch.tensor([[True, False]]))
    assert plan.removes_anything
    units = Plan()
    units.set_kept("group", 0, torch.tensor([0]), 2)
    assert units.removes_anything


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda plan: plan.mask("w.4.4"), r"no mask 'w.4.4'; it has w.1.1, .* and 2 more"),
        (lambda plan: plan.sparsity("w.4.4"), "no mask 'w.4.4'"),
        (lambda plan: plan.kept("neuron", 1), r"no 'neuron' list for block 1; .*\[0, 2\]"),
        (lambda plan: plan.kept("head", 0), "no 'head' list for block 0"),
        (lambda plan: plan.scores("group", 0), r"no group scores for 0; .*keep_scores=True"),
        (lambda plan: plan.scores("weight", "w.1.1"), r"no weight scores .*keep_scores=True"),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(ask: Any, message: str) -> None:
    """A KeyError that says what the plan has, and for scores how to get them."""
    with pytest.raises(KeyError, match=message):
        ask(full_plan())


def test_a_plan_is_described_in_a_line() -> None:
    """Its tensors are not printed."""
    assert len(repr(full_plan())) < 200


# --- plans together ---


def unit_plan(kept: list[int], total: int, kind: str = "neuron", block: int = 0) -> Plan:
    plan = Plan()
    plan.set_kept(kind, block, torch.tensor(kept), total)
    return plan


def test_of_two_masks_both_hold() -> None:
    """A weight stays if both plans keep it; weights that one plan masks keep its mask."""
    first, second = Plan({"method": "A"}), Plan({"method": "B"})
    first.set_mask("both", random_mask(3, 5))
    second.set_mask("both", random_mask(3, 5, seed=1))
    first.set_mask("first", random_mask(2, 8))
    second.set_mask("second", random_mask(1, 7))
    both = joined(first, second)
    assert torch.equal(both.mask("both"), random_mask(3, 5) & random_mask(3, 5, seed=1))
    assert torch.equal(both.mask("first"), first.mask("first"))
    assert torch.equal(both.mask("second"), second.mask("second"))
    assert both.steps == [{"method": "A"}, {"method": "B"}]
    assert torch.equal(first.mask("both"), random_mask(3, 5)), "the parts stay as they were"


def test_units_cut_twice_are_counted_among_the_first_ones() -> None:
    """The second plan's indices are among those that the first one left."""
    both = joined(unit_plan([0, 2, 5, 7], 8), unit_plan([1, 3], 4))
    assert both.kept("neuron", 0).tolist() == [2, 7]
    assert both.blocks("neuron")[0].total == 8


def test_cuts_of_other_kinds_and_blocks_stand_beside_each_other() -> None:
    """And masks that follow cuts are taken over."""
    plans = [unit_plan([0], 4, "group"), unit_plan([1, 2], 8), unit_plan([3], 8, block=2)]
    cuts = reduce(joined, plans)
    masks = Plan()
    masks.set_mask("w", random_mask(3, 5))
    whole = joined(cuts, masks)
    assert whole.kept("group", 0).tolist() == [0]
    assert {i: k.index_U.tolist() for i, k in whole.blocks("neuron").items()} == {0: [1, 2], 2: [3]}
    assert whole.mask_names == ["w"]
    assert len(whole.steps) == 4


def drop_plan(*blocks: int, of: int) -> Plan:
    plan = Plan()
    for index in range(of):
        plan.set_kept("block", index, torch.arange(int(index not in blocks)), 1)
    return plan


def test_blocks_are_numbered_as_in_the_dense_model() -> None:
    """Whatever earlier plans took out; their scores too."""
    cut = unit_plan([0, 2], 4, block=1)
    cut.set_scores("neuron", 1, torch.arange(4.0))
    whole = reduce(joined, [drop_plan(0, 3, of=6), drop_plan(2, of=4), cut])
    assert whole.dropped == {0, 3, 4}
    assert whole.kept("neuron", 2).tolist() == [0, 2]
    assert whole.scores("neuron", 2).tolist() == [0, 1, 2, 3]


def test_corrected_weights_are_named_as_in_the_model_that_is_left() -> None:
    """Those of blocks that went are forgotten."""
    first, later = Plan(), Plan()
    for index in range(3):
        first.set_corrected(f"model.layers.{index}.fc2.weight", torch.full((2,), float(index)))
    first.set_corrected("lm_head.weight", torch.ones(2))
    later.set_corrected("model.layers.0.fc2.weight", torch.ones(3))
    names = joined(first, drop_plan(1, of=3)).corrected
    assert names == {
        "model.layers.0.fc2.weight": first.corrected["model.layers.0.fc2.weight"],
        "model.layers.1.fc2.weight": first.corrected["model.layers.2.fc2.weight"],
        "lm_head.weight": first.corrected["lm_head.weight"],
    }
    after = joined(drop_plan(0, of=2), later)
    assert after.corrected == later.corrected


def test_plans_that_do_not_follow_each_other_are_refused() -> None:
    """Cuts after masks, other totals, other shapes."""
    masked, other = Plan(), Plan()
    masked.set_mask("w", random_mask(3, 5))
    other.set_mask("w", random_mask(2, 8))
    with pytest.raises(ValueError, match="Cut first, then mask"):
        joined(masked, unit_plan([0], 4))
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(2, 8\)"):
        joined(masked, other)
    with pytest.raises(ValueError, match="leaves 2 neuron units in block 0, .* about 4"):
        joined(unit_plan([0, 1], 8), unit_plan([0], 4))


def test_plans_together_are_saved_as_one(tmp_path: Path) -> None:
    """With the provenance of both."""
    both = joined(full_plan(0), Plan({"method": "B"}))
    loaded = Plan.load(both.save(tmp_path))
    assert loaded.steps == both.steps
    assert loaded.fingerprint() == both.fingerprint()


def test_the_fingerprint_is_that_of_the_decisions() -> None:
    """Where a plan comes from does not change it; one weight or unit does."""
    plan, same = full_plan(), full_plan()
    same.provenance["model"] = "another"
    same.set_scores("neuron", 2, torch.ones(22))
    assert plan.fingerprint() == same.fingerprint()
    seen = {plan.fingerprint(), full_plan(seed=1).fingerprint(), Plan().fingerprint()}
    same.set_kept("neuron", 0, torch.tensor([0, 5, 20]), 22)
    seen.add(same.fingerprint())
    assert len(seen) == 4


# --- on disk ---


def test_everything_comes_back_from_disk(tmp_path: Path) -> None:
    """Masks, units, scores and provenance, from the folder or its plan.json."""
    plan = full_plan()
    assert plan.save(tmp_path / "a" / "plan") == tmp_path / "a" / "plan"
    for path in (tmp_path / "a" / "plan", str(tmp_path / "a" / "plan" / "plan.json")):
        loaded = Plan.load(path)
        assert loaded.provenance == plan.provenance
        assert sorted(loaded.mask_names) == sorted(plan.mask_names)
        for name in plan.mask_names:
            assert torch.equal(loaded.mask(name), plan.mask(name))
        assert sorted(loaded.kinds) == ["group", "neuron"]
        for kind in plan.kinds:
            for block, kept in plan.blocks(kind).items():
                assert loaded.kept(kind, block).tolist() == kept.index_U.tolist()
                assert loaded.blocks(kind)[block].total == kept.total
        for kind, key in (("weight", "w.3.5"), ("neuron", 0), ("group", 11)):
            assert torch.equal(loaded.scores(kind, key), plan.scores(kind, key))


def test_an_empty_plan_comes_back(tmp_path: Path) -> None:
    """Nothing decided is a plan too."""
    assert not Plan.load(Plan().save(tmp_path)).removes_anything


def test_masks_take_one_bit_a_weight(tmp_path: Path) -> None:
    """What is stored of 8192 weights is 1 KiB."""
    plan = Plan()
    plan.set_mask("w", random_mask(64, 128))
    tensors = load_file(plan.save(tmp_path) / "plan.safetensors")
    assert sum(t.numel() * t.element_size() for t in tensors.values()) == 1024


@pytest.mark.parametrize("missing", ["plan.json", "plan.safetensors", "both"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    """The message says which file, and what a plan is."""
    full_plan().save(tmp_path)
    for name in ("plan.json", "plan.safetensors"):
        if missing in (name, "both"):
            (tmp_path / name).unlink()
    named = "plan.json" if missing == "both" else missing
    with pytest.raises(FileNotFoundError, match=f"no plan at .*{named} does not exist.*Plan.save"):
        Plan.load(tmp_path)


def edit_head(folder: Path, **changes: Any) -> None:
    """Rewrites entries of plan.json; None takes them away."""
    head = json.loads((folder / "plan.json").read_text()) | changes
    head = {key: value for key, value in head.items() if value is not None}
    (folder / "plan.json").write_text(json.dumps(head))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, flip_one_bit, lambda path: path.write_bytes(b"")])
def test_damaged_tensors_are_found_by_their_checksum(tmp_path: Path, damage: Any) -> None:
    """One bit is enough."""
    full_plan().save(tmp_path)
    damage(tmp_path / "plan.safetensors")
    with pytest.raises(ValueError, match="do not match the checksums in plan.json"):
        Plan.load(tmp_path)


def test_files_of_two_plans_do_not_mix(tmp_path: Path) -> None:
    """The tensors of another run are refused, although they have the same names and shapes."""
    full_plan(0).save(tmp_path / "a")
    full_plan(1).save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "plan.safetensors", tmp_path / "b" / "plan.safetensors")
    with pytest.raises(ValueError, match=r"belong to another run\. Prune again"):
        Plan.load(tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"masks": {"w.1.1": [3, 9]}},
        {"masks": {"stranger": [3, 5]}},
        {"masks": {"w.3.5": "3x5"}},
        {"masks": ["w.3.5"]},
        {"units": {"neuron": {"7": 22}}},
        {"units": {"neuron": {"zero": 22}}},
        {"units": [1]},
        {"provenance": None},
        {"masks": None},
        {"sha256": None},
        {"format": None},
        {"format": "one"},
    ],
)
def test_a_tampered_head_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """plan.json that does not fit its tensors, or is no plan, is called damaged."""
    full_plan().save(tmp_path)
    edit_head(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"the plan in .* is damaged: .*\. Prune again"):
        Plan.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"plan"'])
def test_a_head_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    """Truncated JSON, and JSON of another kind."""
    full_plan().save(tmp_path)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        Plan.load(tmp_path)


def test_tensors_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    """Even where the checksum agrees."""
    full_plan().save(tmp_path)
    (tmp_path / "plan.safetensors").write_bytes(b"x" * 100)
    edit_head(tmp_path, sha256=lightning_prune.plan.file.sha256(tmp_path / "plan.safetensors"))
    with pytest.raises(ValueError, match="is damaged"):
        Plan.load(tmp_path)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    """Whatever else the newer format changed."""
    full_plan().save(tmp_path)
    edit_head(tmp_path, format=99, masks=None, sha256=None)
    with pytest.raises(ValueError, match=r"of format 99; .*Update lightning_prune"):
        Plan.load(tmp_path)


def raising(*_: Any, **__: Any) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize("where", ["tensors", "sync", "json", "provenance"])
def test_a_failed_save_leaves_the_old_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Both files stay those of the old plan, and nothing else lies there."""
    old, new = full_plan(0), full_plan(1)
    old.save(tmp_path)
    if where == "tensors":
        monkeypatch.setattr(lightning_prune.plan.file, "save_file", raising)
    elif where == "sync":
        monkeypatch.setattr(os, "fsync", raising)
    elif where == "json":
        monkeypatch.setattr(lightning_prune.plan.file, "write_json", raising)
    else:
        new.provenance["tensor"] = torch.ones(1)
    with pytest.raises((OSError, TypeError)):
        new.save(tmp_path)
    monkeypatch.undo()
    assert torch.equal(Plan.load(tmp_path).mask("w.9.31"), old.mask("w.9.31"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.json", "plan.safetensors"]


def test_a_plan_is_saved_over_an_older_one(tmp_path: Path) -> None:
    """The newer one is read."""
    full_plan(0).save(tmp_path)
    full_plan(1).save(tmp_path)
    assert torch.equal(Plan.load(tmp_path).mask("w.9.31"), full_plan(1).mask("w.9.31"))


def test_a_foreign_safetensors_file_is_no_plan(tmp_path: Path) -> None:
    """A checkpoint beside a plan.json is refused."""
    full_plan().save(tmp_path)
    save_file({"model.embed": torch.ones(3)}, tmp_path / "plan.safetensors")
    with pytest.raises(ValueError, match="do not match the checksums"):
        Plan.load(tmp_path)
