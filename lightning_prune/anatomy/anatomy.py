"""A family's table bound to one model: its blocks, sites, head geometry and units.

Everything is read from the modules' real shapes, so that an already pruned, uneven model is
described as truly as a dense one.

Axes: O output features, I input features, U units, S features of one unit, V vocabulary, D hidden
size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from lightning_prune.anatomy.families import Family, SiteTable, family_of
from lightning_prune.anatomy.tasks import Task
from lightning_prune.anatomy.weights import (
    check_in_memory,
    check_numbers,
    check_unquantised,
    no_model,
)

__all__ = ["UNIT_ROLES", "Anatomy", "Block", "Member", "Site"]

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
        """Features of one attention head; 1 where blocks have no heads that could be cut."""
        if not self.family.attention:
            return 1
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

    def copied(self, config: object) -> Block:
        """The same block with a module of its own, which keeps the model's config."""
        module = copy.deepcopy(self.module, {id(config): config})
        return replace(self, module=module, sites=tuple(self.sites_in(module)))

    def part(self, sites: Iterable[Site]) -> Block:
        """The same block with some of its sites only, as far as a method is concerned."""
        return replace(self, sites=tuple(sites))

    def parts(self) -> dict[str, Block]:
        """Its "attention" and its "mlp", each with the sites that are here."""
        groups = {*UNIT_ROLES["group"]}
        parts: dict[str, list[Site]] = {}
        for site in self.sites:
            is_attention = groups & {*site.table.rows, site.table.columns}
            parts.setdefault("attention" if is_attention else "mlp", []).append(site)
        return {name: self.part(sites) for name, sites in parts.items()}

    def _role_sizes(self) -> dict[str, int]:
        group = self.heads // self.kv_heads * self.head_dim if self.kv_heads else 0
        return {"query": group, "key": self.head_dim, "value": self.head_dim, "neuron": 1}


class Anatomy:
    """Where things are in one model.

    Args:
        model: a Hugging Face model of a known family, with the head that its family is about.

    Raises:
        ValueError: the model is none of a known family, not as its family's table says, or
            quantised.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        model_type = getattr(getattr(model, "config", None), "model_type", None)
        if not isinstance(model_type, str):
            raise ValueError(no_model(model))
        check_unquantised(type(model).__name__, model.config)
        self.family = family_of(model_type)
        body = self.family.body
        try:
            found = self.family.blocks_of(model)
            self.body = model.get_submodule(
                self.family.blocks.rpartition(".")[0] if body is None else body
            )
            for module in found.values():
                for table in self.family.sites:
                    module.get_submodule(table.path)
        except AttributeError:
            raise ValueError(
                f"{type(model).__name__} is not laid out as {model_type} models that can be "
                f"pruned: they have their blocks in {self.family.blocks!r}, each with "
                f"{', '.join(table.path for table in self.family.sites)}. Pass what "
                f"{self.task.auto_class}.from_pretrained gives, before adapters are attached "
                "(merge them first)."
            ) from None
        self.blocks = [self._bind(i, *named) for i, named in enumerate(found.items())]

    @property
    def task(self) -> Task:
        """What goes into the model, and what its head is to say."""
        return self.family.task

    @cached_property
    def head(self) -> Block:
        """The output layer, as one more block, with one site, behind the last.

        Raises:
            ValueError: the model has none that says what its family's models say.
        """
        linear = self.task.head(self.model)
        if linear is None:
            raise ValueError(
                f"{type(self.model).__name__} has no head of {self.task.auto_class}, and a loss "
                f"or the head's own weights are asked for: pass what {self.task.auto_class}."
                "from_pretrained gives, or take a method that reads weights or activations alone."
            )
        name = next(name for name, module in self.model.named_modules() if module is linear)
        site = Site(name, SiteTable("", reads="head_input"), linear)
        return Block(len(self.blocks), name, linear, self.family, (site,))

    @property
    def token_table(self) -> torch.Tensor | None:
        """The weight of the input embeddings, (V, D); None where no tokens go in."""
        try:
            table = self.model.get_input_embeddings()  # type: ignore[operator]
        except (AttributeError, NotImplementedError):
            return None
        return table.weight if isinstance(table, nn.Embedding) else None

    @property
    def outside(self) -> list[nn.Module]:
        """The modules that are no blocks: embeddings, rotary tables, final norm, head."""
        blocks = {block.name for block in self.blocks}
        holders = {name[:i] for name in blocks for i, sign in enumerate(name) if sign == "."}
        return [
            module
            for name, module in self.model.named_modules()
            if name and name.rpartition(".")[0] in {"", *holders} - blocks
            if name not in blocks | holders
        ]

    def check_weights(self) -> None:
        """Refuse weights that are no numbers in memory: pruning could not read them.

        Raises:
            ValueError: some are on the meta device, or Linears of the blocks are quantised.
        """
        check_in_memory(self.model)
        for block in self.blocks:
            for site in block.sites:
                check_numbers(site.name, site.module)

    def check_removable(self) -> None:
        """Refuse to leave blocks out of a model whose stages differ in width.

        Raises:
            ValueError: its blocks stand in stages.
        """
        if self.family.staged:
            raise ValueError(
                f"the blocks of {type(self.model).__name__} stand in stages of different widths, "
                "and none of them can be left out, or compared with what it makes of its input: "
                "remove weights or neurons, and share the budget by something else"
            )

    def _bind(self, index: int, name: str, module: nn.Module) -> Block:
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
