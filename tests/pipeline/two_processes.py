"""What each of two processes does in the test of distributed pruning."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from lightning_prune import (
    AFR,
    CFSP,
    FLAP,
    Bias,
    DropBlocks,
    GQATaylor,
    Inverse,
    Plan,
    ResidualFit,
    Sensitivity,
    SparseGPT,
    StructuredOBS,
    Wanda,
    prune,
)
from tests.contract.cases import batches, even_model

METHODS = {
    "wanda": Wanda(sparsity=0.5),
    "wanda 2:4": Wanda(pattern="2:4"),
    "taylor": GQATaylor(ratio=0.25),
    "sparsegpt": SparseGPT(sparsity=0.5),
    "residual fit": ResidualFit(sparsity=0.5),
    "flap": FLAP(ratio=0.3, repair=Bias()),
    "obs": StructuredOBS(ratio=0.3, allocation=Inverse(importance="angular")),
    "afr": AFR(ratio=0.3),
    "drop": DropBlocks(count=1, part="mlp"),
    "cfsp": CFSP(ratio=0.3),
    "sensitivity": Wanda(sparsity=0.5, propagate="layer", allocation=Sensitivity(windows=3)),
}
SHARES = {"in turn": [0, 1, 0, 1], "uneven": [0, 0, 1, 0], "one has none": [0, 0, 0, 0]}
ONLY_IN_TURN = {"sensitivity", "flap", "cfsp", "drop"}
# (Sensitivity tries the first windows, as a distributed loader hands them out.)


def plan_of(name: str, data: list[dict[str, torch.Tensor]]) -> Plan:
    return prune(even_model("llama"), METHODS[name], data)


def names_for(share: str) -> list[str]:
    """The methods that decide as one process would, when batches are shared out so."""
    return [name for name in METHODS if share == "in turn" or name not in ONLY_IN_TURN]


def work(rank: int, folder: str) -> None:
    """Prunes with this process's share of the batches, and saves the plan."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    data = batches(size=1)
    for share, owners in SHARES.items():
        mine = [batch for batch, owner in zip(data, owners, strict=True) if owner == rank]
        for name in names_for(share):
            plan_of(name, mine).save(Path(folder) / f"{name} {share} {rank}")
    for name in METHODS:
        try:
            plan_of(name, [])
        except ValueError as error:  # on both, and neither waits for the other
            (Path(folder) / f"{name} error {rank}").write_text(str(error))
    dist.destroy_process_group()
