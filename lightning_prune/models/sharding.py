"""FSDP2: the weights of every block are spread over the devices and gathered when it runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

__all__ = ["FSDP2", "data_mesh", "shard"]

_OTHERS = "meta.pt"  # where Lightning keeps what is no weight and no optimizer
_COMPUTE_DTYPE = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class FSDP2(ModelParallelStrategy):
    """The model spread over all devices of all nodes; `strategy="fsdp2"` in a Trainer.

    Lightning's own ModelParallelStrategy splits single tensors over the devices of a node unless it
    is told the number of all devices, and its checkpoints hold the frozen weights too.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1)

    def setup_environment(self) -> None:
        """Count the devices, and start the processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights, in shards; with an adapter, those that are trained."""
        assert self.model is not None
        options = StateDictOptions(cpu_offload=True, ignore_frozen_params=self._adapted)
        return get_model_state_dict(self.model, options=options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read weights, all or those that are trained, and optimizers into their shards."""
        path = Path(self.broadcast(checkpoint_path))
        if not self._adapted or not (path / _OTHERS).is_file():
            return super().load_checkpoint(checkpoint_path, weights_only)
        assert self.model is not None
        trained = get_model_state_dict(
            self.model, options=StateDictOptions(ignore_frozen_params=True)
        )
        dcp.load({"state_dict": trained}, checkpoint_id=path)
        self.model.load_state_dict(trained, strict=False)
        for i, optimizer in enumerate(self.optimizers):
            state = {f"optimizer_{i}": get_optimizer_state_dict(self.model, optimizer)}
            dcp.load(state, checkpoint_id=path)
            set_optimizer_state_dict(
                self.model,
                optimizer,
                optim_state_dict=state[f"optimizer_{i}"],
                options=StateDictOptions(cpu_offload=True),
            )
        others: dict[str, Any] = torch.load(path / _OTHERS, weights_only=weights_only)
        return others

    @property
    def _adapted(self) -> bool:
        return bool(getattr(self.lightning_module, "adapted", False))


StrategyRegistry.register("fsdp2", FSDP2, "FSDP2 over all devices", override=True)


def data_mesh(mesh: DeviceMesh) -> DeviceMesh:
    """The data-parallel axis of the mesh that Lightning's ModelParallelStrategy makes.

    Raises:
        ValueError: the mesh also asks for tensor parallelism.
    """
    tensor_parallel = mesh["tensor_parallel"].size()
    if tensor_parallel > 1:
        raise ValueError(
            f"the strategy asks for tensor parallelism over {tensor_parallel} devices, and models "
            "are not split that way here. Use strategy: fsdp2, which spreads the model over all "
            "devices."
        )
    return mesh["data_parallel"]


def shard(model: nn.Module, blocks: Iterable[nn.Module], mesh: DeviceMesh, precision: str) -> None:
    """Shard a model in place: each block, then what lies outside the blocks.

    Args:
        model: the module that is called in training.
        blocks: its decoder blocks.
        mesh: of the strategy; see `data_mesh`.
        precision: the trainer's; with a "-mixed" one, blocks compute in it and gradients are
            reduced in fp32.
    """
    for parameter in model.parameters():
        if not parameter.numel():  # of an attention or MLP taken out: no gradient can be reduced
            parameter.requires_grad_(False)
    dtype = _COMPUTE_DTYPE.get(precision)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    for module in (*blocks, model):
        fully_shard(module, mesh=data_mesh(mesh), mp_policy=policy)
