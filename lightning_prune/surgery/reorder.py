"""Inner features in another order: the block computes the same, and N:M zeros can lie better.

The neurons of an MLP may stand in any order, if the rows that make them and the columns that read
them go along; so may the values of one key/value head, which all its query heads read alike.

Axes: O output features, I input features, S sets of features that change places among themselves,
R readers of each set, F features of a set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lightning_prune.anatomy import Block, Site

__all__ = ["InnerFeatures", "inner_features"]

MAKERS = {"neuron": "neuron", "query": "value"}
"""By the role of the columns that read inner features, the role of the rows that make them."""


@dataclass(frozen=True)
class InnerFeatures:
    """Features inside a block that one Linear reads, and whose order is free.

    Attributes:
        reader: the Linear whose columns are these features, in order (set, reader, feature).
        makers: the Linears whose rows are these features, each with the first of those rows.
        sets: 1 for neurons, key/value heads for values.
        size: features of a set.
    """

    reader: Site
    makers: tuple[tuple[Site, int], ...]
    sets: int
    size: int

    def columns(self, score_OI: torch.Tensor) -> torch.Tensor:
        """The reader's columns, those of all readers of a set one above the other, (S, O·R, F)."""
        score_OSRF = score_OI.unflatten(1, (self.sets, -1, self.size))
        return score_OSRF.transpose(0, 1).flatten(1, 2)

    def moves(self, order_SF: torch.Tensor) -> Iterator[tuple[str, int, torch.Tensor]]:
        """What has to be moved for a new order: (name of the parameter, axis, index on the axis).

        Args:
            order_SF: for each set, which feature comes where.
        """
        order_SF = order_SF.cpu()
        start_S1 = torch.arange(self.sets)[:, None] * self.size
        for site, first in self.makers:
            index_O = torch.arange(site.module.out_features)
            index_O[first : first + order_SF.numel()] = (first + start_S1 + order_SF).flatten()
            yield site.weight_name, 0, index_O
            if site.module.bias is not None:
                yield f"{site.name}.bias", 0, index_O
        column_SRF = torch.arange(self.reader.module.in_features)
        column_SRF = column_SRF.view(self.sets, -1, self.size)
        index_SRF = order_SF[:, None].expand_as(column_SRF)
        yield self.reader.weight_name, 1, column_SRF.gather(2, index_SRF).flatten()


def inner_features(block: Block) -> Iterator[InnerFeatures]:
    """All inner features of a block whose readers and makers are among its sites."""
    sites = {site.table.path: site for site in block.sites}
    for reader in block.sites:
        role = MAKERS.get(reader.table.columns)
        tables = [table for table in block.family.sites if role in table.rows]
        if role is None or any(table.path not in sites for table in tables):
            continue
        features = reader.module.in_features
        makers = [
            (sites[table.path], first, rows)
            for table in tables
            for made, first, rows in _rows(sites[table.path], features)
            if made == role
        ]
        count = makers[0][2]
        size = features if role == "neuron" else block.head_dim
        yield InnerFeatures(
            reader, tuple((site, first) for site, first, _ in makers), count // size, size
        )


def _rows(site: Site, width: int) -> Iterator[tuple[str, int, int]]:
    """(role, first row, number of rows) of each part of a site; queries and neurons are `width`."""
    roles = site.table.rows
    narrow = sum(role in ("key", "value") for role in roles)
    left = site.module.out_features - width * (len(roles) - narrow)
    first = 0
    for role in roles:
        rows = left // narrow if role in ("key", "value") else width
        yield role, first, rows
        first += rows
