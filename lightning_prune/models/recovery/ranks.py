"""Ranks of low-rank updates in proportion to the importance of blocks.

Source: Wang et al., "CFSP", arXiv 2409.13199, importance-guided recovery.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedModel

from lightning_prune.allocation import read_importance
from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan

__all__ = ["ranks_of_blocks", "whole_ranks"]


def ranks_of_blocks(
    model: PreTrainedModel, plan: Plan | None, mean: int, path: str
) -> dict[str, int]:
    """The rank of each block, by a pattern of the names of its modules.

    Args:
        model: a plain model, pruned or not.
        plan: what has been pruned of it.
        mean: of the ranks.
        path: of an importance.json about the dense model.

    Raises:
        ValueError: there is no such file, it is about another model, or no block has an importance
            above 0.
    """
    blocks = Anatomy(model).blocks
    gone = plan.dropped if plan is not None else set()
    total = len(blocks) + len(gone)  # the file is about the dense model
    left = [index for index in range(total) if index not in gone]
    shares = [max(value, 0.0) for value in read_importance(path, left, total)]
    if not sum(shares):
        raise ValueError(f"no block in {path} has an importance above 0")
    wishes = [mean * len(shares) * share / sum(shares) for share in shares]
    return {
        rf"{re.escape(block.name)}\..*": rank
        for block, rank in zip(blocks, whole_ranks(wishes), strict=True)
    }


def whole_ranks(wishes: Sequence[float]) -> list[int]:
    """Whole numbers of 1 or more with the sum of the wishes, by largest remainders.

    Where many wishes are below 1, the sum is larger.
    """
    ranks = [max(int(wish), 1) for wish in wishes]
    remainders = [wish - rank for wish, rank in zip(wishes, ranks, strict=True)]
    left = round(sum(wishes)) - sum(ranks)
    for index in sorted(range(len(ranks)), key=lambda i: -remainders[i])[: max(left, 0)]:
        ranks[index] += 1
    return ranks
