"""What a data module meets in a run: a Trainer and its module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lightning_prune.data import TextData


def in_trainer(
    data: TextData, module: Any, rank: int = 0, world: int = 1, accumulated: int = 1
) -> TextData:
    progress = SimpleNamespace(current=SimpleNamespace(processed=0))
    fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(
        limit_train_batches=1.0,
        lightning_module=module,
        global_rank=rank,
        world_size=world,
        accumulate_grad_batches=accumulated,
        fit_loop=fit_loop,
    )
    return data


def module_of(tokenizer: Any, length: int = 64) -> SimpleNamespace:
    return SimpleNamespace(tokenizer=tokenizer, max_position_embeddings=length)


def ids_of(batches: Any) -> list[list[list[int]]]:
    return [batch["input_ids"].tolist() for batch in batches]
