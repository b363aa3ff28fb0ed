"""A family's table bound to one model: its blocks, sites, head geometry and units.

Everything is read from the modules' real shapes, so that an already pruned, uneven model is
described as truly as a dense one.

Axes: O output features, I input features, U units, S features of one unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from lightning_prune.anatomy.families import FAMILIES, Family, SiteTable

__all__ = ["UNIT_ROLES", "Anatomy", "Block", "Member", "Site", "family_of"]

PRUNED_PREFIX = "pruned_"
"""`model_type` of a checkpoint with uneven widths: this prefix, then the type it comes from."""

UNIT_ROLES = {"group": ("query", "key", "value"), "neuron": ("neuron",)}
"""The row and column roles that each kind of unit is made of."""


@dataclass(frozen=True)
class Site:
    """One Linear of one block."""

    name: str
    table: SiteTable
    module: nn.Linear

    @property
    def weight_name(self) -> str:
        """Name of its weight in the model's state dict."""
        return f"{self.name}.weight"


@dataclass(frozen=True)
class Member:
    """The part of a unit that lies in one site: `size` features from `offset + unit * size` on.

    `axis` 0 counts rows (output features, and the bias), 1 counts columns (input features).
    """

    site: Site
    axis: int
    offset: int
    size: int

    def gather(self, weight_OI: torch.Tensor, units: int) -> torch.Tensor:
        """All features of the units of one weight-shaped tensor, as (U, S, other axis)."""
        part = weight_OI.narrow(self.axis, self.offset, units * self.size)
        part = part if self.axis == 0 else part.mT
        return part.unflatten(0, (units, self.size))

    def features(self, kept_U: torch.Tensor) -> torch.Tensor:
        """Indices on the axis of the features of the units `kept_U`, in order."""
        within_S = torch.arange(self.size, device=kept_U.device)
        return (self.offset + kept_U[:, None] * self.size + within_S).flatten()


@dataclass(frozen=True)
class Block:
    """One decoder block of one model."""

    index: int
    name: str
    module: nn.Module
    family: Family
    sites: tuple[Site, ...]

    @cached_property
    def head_dim(self) -> int:
        """Features of one attention head."""
        return int(self.module.get_submodule(self.family.attention).head_dim)  # type: ignore[arg-type]

    @property
    def heads(self) -> int:
        """Query heads."""
        outputs = (s.module.in_features for s in self.sites if s.table.columns == "query")
        return next(outputs, 0) // self.head_dim

    @property
    def kv_heads(self) -> int:
        """Key/value heads; each makes one GQA group with its query heads."""
        site = next((s for s in self.sites if "key" in s.table.rows), None)
        if site is None:
            return 0
        query = self.heads * self.head_dim if "query" in site.table.rows else 0
        roles = sum(role in ("key", "value") for role in site.table.rows)
        return (site.module.out_features - query) // (roles * self.head_dim)

    @property
    def width(self) -> int:
        """MLP neurons."""
        inner = (s.module.in_features for s in self.sites if s.table.columns == "neuron")
        return next(inner, 0)

    def units(self, kind: str) -> int:
        """How many units of a kind ("group", "neuron", or "block": itself) the block has."""
        return {"group": self.kv_heads, "neuron": self.width, "block": 1}[kind]

    def members(self, kind: str) -> Iterator[Member]:
        """The parts of the units of a kind: in which sites, on which axis, from where."""
        roles, sizes = UNIT_ROLES[kind], self._role_sizes()
        for site in self.sites:
            offset = 0
            for role in site.table.rows:
                if role in roles:
                    yield Member(site, 0, offset, sizes[role])
                offset += sizes[role] * self.units("neuron" if role == "neuron" else "group")
            if site.table.columns in roles:
                yield Member(site, 1, 0, sizes[site.table.columns])

    def reader(self, kind: str) -> Member:
        """Where units of a kind are read: columns of o_proj (groups) or down_proj (neurons)."""
        return next(member for member in self.members(kind) if member.axis == 1)

    def unit_size(self, kind: str) -> int:
        """Parameters, biases included, that go with each unit of a kind."""
        size = 0
        for member in self.members(kind):
            linear = member.site.module
            size += member.size * linear.weight.shape[1 - member.axis]
            size += member.size * (member.axis == 0 and linear.bias is not None)
        return size

    def inputs(self) -> dict[str, tuple[Site, ...]]:
        """Sites that read the same tensor, by its name, in the order in which they run."""
        shared: dict[str, tuple[Site, ...]] = {}
        for site in self.sites:
            shared[site.table.reads] = (*shared.get(site.table.reads, ()), site)
        return shared

    def sites_in(self, copy: nn.Module) -> Iterator[Site]:
        """The same sites in a copy of the block's module."""
        for site in self.sites:
            linear = copy.get_submodule(site.table.path)
            assert isinstance(linear, nn.Linear)
            yield replace(site, module=linear)

    def part(self, sites: Iterable[Site]) -> Block:
        """The same block with some of its sites only, as far as a method is concerned."""
        return replace(self, sites=tuple(sites))

    def _role_sizes(self) -> dict[str, int]:
        group = self.heads // self.kv_heads * self.head_dim if self.kv_heads else 0
        return {"query": group, "key": self.head_dim, "value": self.head_dim, "neuron": 1}


class Anatomy:
    """Where things are in one causal LM.

    Args:
        model: a Hugging Face causal LM.

    Raises:
        ValueError: no table describes this model type, or the table does not fit the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.family = family_of(model.config.model_type)  # type: ignore[union-attr, arg-type]
        parent, _, name = self.family.blocks.rpartition(".")
        try:
            self.decoder = model.get_submodule(parent)
            modules = self.decoder.get_submodule(name)
        except AttributeError as error:
            raise ValueError(
                f"{type(model).__name__} has no module {self.family.blocks!r}, where "
                f"{model.config.model_type} models keep their blocks. Pass the causal LM itself, "  # type: ignore[union-attr]
                "before adapters are attached (merge them first)."
            ) from error
        self.blocks = [self._bind(i, block) for i, block in enumerate(modules.children())]

    @cached_property
    def head(self) -> Block:
        """The output layer (lm_head), as one more block, with one site, behind the last."""
        linear = self.model.get_output_embeddings()  # type: ignore[operator]
        name = next(name for name, module in self.model.named_modules() if module is linear)
        site = Site(name, SiteTable("", reads="head_input"), linear)
        return Block(len(self.blocks), name, linear, self.family, (site,))

    @property
    def outside(self) -> list[nn.Module]:
        """The modules that are no blocks: embeddings, rotary tables, final norm, head."""
        found: list[nn.Module] = []
        path = self.family.blocks.split(".")
        module: nn.Module = self.model
        for name in path:
            found += [child for key, child in module.named_children() if key != name]
            module = module.get_submodule(name)
        return found

    def _bind(self, index: int, module: nn.Module) -> Block:
        name = f"{self.family.blocks}.{index}"
        sites = []
        key = self.family.pre_norm_key
        norms_behind = key is not None and not getattr(self.model.config, key)
        for table in self.family.sites:
            linear = module.get_submodule(table.path)
            if not isinstance(linear, nn.Linear):
                raise ValueError(
                    f"{name}.{table.path} is a {type(linear).__module__}."
                    f"{type(linear).__qualname__}, not a torch.nn.Linear. Prune the plain model: "
                    "merge its adapter first (module.merge_adapter() of a CausalLM, "
                    "merge_and_unload() of a peft model), or take other wrappers off."
                )
            if norms_behind:
                table = replace(table, adds=False)
            sites.append(Site(f"{name}.{table.path}", table, linear))
        return Block(index, name, module, self.family, tuple(sites))


def family_of(model_type: str) -> Family:
    """The table of a model type.

    Raises:
        ValueError: there is none; the message lists the known types.
    """
    base = model_type.removeprefix(PRUNED_PREFIX)
    for family in FAMILIES:
        if base in family.model_types:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise ValueError(
        f"unknown model type {model_type!r}; known: {known}. A decoder-only family of your own is "
        "one table: see lightning_prune/anatomy/families.py."
    )
