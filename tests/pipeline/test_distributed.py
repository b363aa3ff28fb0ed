"""Several processes, each with its own share of the calibration set, decide as one would."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from lightning_prune import distributed
from lightning_prune.plan import Plan
from tests.contract.cases import batches
from tests.pipeline.two_processes import METHODS, SHARES, names_for, plan_of, work


@pytest.mark.slow
def test_two_processes_decide_as_one(tmp_path: Path) -> None:
    """Same masks and units for every share of the batches, even if one process has none."""
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    for name in METHODS:
        alone = plan_of(name, batches(size=1))
        for share in (share for share in SHARES if name in names_for(share)):
            for rank in (0, 1):
                assert_same_plan(Plan.load(tmp_path / f"{name} {share} {rank}"), alone)
        for rank in (0, 1):
            assert "no calibration tokens" in (tmp_path / f"{name} error {rank}").read_text()


def assert_same_plan(found: Plan, expected: Plan) -> None:
    assert sorted(found.mask_names) == sorted(expected.mask_names)
    for name in expected.mask_names:
        assert torch.equal(found.mask(name), expected.mask(name)), name
    assert sorted(found.kinds) == sorted(expected.kinds)
    for kind in expected.kinds:
        for block, kept in expected.blocks(kind).items():
            assert found.kept(kind, block).tolist() == kept.index_U.tolist()


def test_a_single_process_needs_no_process_group() -> None:
    """Every operation leaves things as they are."""
    tensor = torch.tensor([1.0, 2.0])
    assert distributed.sum_(tensor) is tensor
    assert distributed.broadcast_(tensor) is tensor
    assert tensor.tolist() == [1, 2]
    distributed.barrier()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
