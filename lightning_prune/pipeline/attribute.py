"""What each part of a model stands for, over reference samples, without changing the model.

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.anatomy.choosing import as_patterns, matching
from lightning_prune.attribution.attributions import Attributions, Kind
from lightning_prune.digests import fingerprint
from lightning_prune.evidence import (
    Evidence,
    Gradients,
    HeadObjective,
    InputNorm,
    Logit,
    Relevance,
    TaskLoss,
)
from lightning_prune.pipeline.stages import Batch
from lightning_prune.progress import BlockProgress
from lightning_prune.scores.magnitude import magnitude_score
from lightning_prune.scores.wanda import wanda_score
from lightning_prune.sweep import (
    Collected,
    HiddenStates,
    Placement,
    collect,
    evaluating,
    home_device,
    placement_of,
    visit,
)

__all__ = ["By", "attribute", "count_parts"]

By = Literal["relevance", "gradient", "snip", "wanda", "magnitude"]


class _Way(NamedTuple):
    """How weights are given a number.

    Attributes:
        evidence: what is collected, for an objective; None: nothing.
        values: (O, I), of a site and what was collected of it.
    """

    evidence: Callable[[HeadObjective], Evidence] | None
    values: Callable[[Site, Any], torch.Tensor]


_WAYS: dict[str, _Way] = {
    "relevance": _Way(lambda asked: Relevance(objective=asked), lambda _, e: e.first_OI),
    "gradient": _Way(lambda asked: Gradients(objective=asked), lambda _, e: e.first_OI),
    "snip": _Way(lambda _: Gradients(objective=TaskLoss()), lambda _, e: e.absolute_OI),
    "wanda": _Way(
        lambda _: InputNorm(), lambda site, norm_I: wanda_score(site.module.weight, norm_I).float()
    ),
    "magnitude": _Way(None, lambda site, _: magnitude_score(site.module.weight)),
}


@torch.no_grad()
def attribute(
    model: nn.Module,
    batches: Iterable[Batch] = (),
    by: By = "relevance",
    kind: Kind = "neuron",
    objective: HeadObjective = Logit(),  # noqa: B008
    include: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
    device: torch.device | str | None = None,
) -> Attributions:
    """Attribute what a model answers, over reference samples, to its neurons, groups or weights.

    ```python
    general, undesired = attribute(model, windows), attribute(model, prompts)
    plan = prune(model, Circuit(general=general, undesired=undesired, count=100))
    ```

    A unit's number is the sum over the weights that read it (columns of down_proj or o_proj), which
    is the relevance of its activation. The relevance of a gated neuron's rows of gate and up, which
    the paper sums, is half of that each, so that the order is the same; where a Linear has biases
    these take a part of what its row would have.

    In several processes each passes its own share of the batches, and all get the same numbers.
    The model is run block by block where it is larger than the device's memory.

    Args:
        model: a Hugging Face model of a known family, without adapters.
        batches: reference samples that the family's task reads, as dicts with `input_ids` (B, T).
        by: "relevance": weight times gradient by the rules of AttnLRP, signed; "gradient": the
            same by plain gradients; "snip": the magnitude of weight times the loss's gradient;
            "wanda": |W| · ||X||; "magnitude": |W|, of no samples.
        kind: of MLP neurons ("neuron"), of GQA groups ("group"), or of single weights ("weight"),
            as many as the Linears concerned have.
        objective: the answer that is explained, by "relevance" and "gradient".
        include: patterns of names of Linears, as in "*.up_proj"; of kind "weight" alone.
        exclude: patterns of names that are left out.
        device: where blocks run, one at a time. Default: where the model is.

    Raises:
        ValueError: an argument is unknown, no Linear is left, there are no samples, or numbers are
            not finite.
    """
    anatomy = Anatomy(model)
    anatomy.check_weights()
    way = _way(by, kind)
    if isinstance(objective, Logit) and by in ("relevance", "gradient"):
        objective.check(anatomy.head.sites[0].module.out_features)
    blocks = _parts(anatomy, kind, as_patterns(include), as_patterns(exclude))
    place = placement_of(anatomy, home_device(model) if device is None else torch.device(device))
    values: dict[str, torch.Tensor] = {}
    evidence = way.evidence(objective) if way.evidence is not None else None
    with (
        evaluating(model),
        closing(_collected(place, blocks, evidence, list(batches))) as steps,
        BlockProgress(len(blocks), by, enabled=distributed.rank() == 0) as progress,
    ):
        for block, results in steps:
            values |= _values(anatomy.blocks[block.index], block, kind, way, results)
            progress.advance(block.name)
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise ValueError(
                f"the {by} of {name} is not finite: activations or gradients overflow. Load the "
                "model in bfloat16 or float32, and check that it answers well."
            )
    facts = {"by": by, "model": fingerprint(model)}
    if by in ("relevance", "gradient"):
        facts["objective"] = repr(objective)
    return Attributions(kind, values, facts)


def count_parts(
    model: nn.Module,
    kind: Kind = "neuron",
    include: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
) -> int:
    """How many parts `attribute` would give a number.

    Raises:
        ValueError: there are none.
    """
    anatomy = Anatomy(model)
    parts = _parts(anatomy, kind, as_patterns(include), as_patterns(exclude))
    if kind == "weight":
        return sum(site.module.weight.numel() for part in parts for site in part.sites)
    return sum(anatomy.blocks[part.index].units(kind) for part in parts)


def _way(by: str, kind: str) -> _Way:
    for name, value, allowed in (("by", by, get_args(By)), ("kind", kind, get_args(Kind))):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not allowed; it is one of {', '.join(allowed)}")
    return _WAYS[by]


def _parts(
    anatomy: Anatomy, kind: Kind, include: Sequence[str], exclude: Sequence[str]
) -> list[Block]:
    """The blocks with the sites whose weights are looked at."""
    if kind == "weight":
        parts = matching(anatomy.blocks, include, exclude)
    else:
        if (tuple(include), tuple(exclude)) != (("*",), ()):
            raise ValueError(
                f"include={list(include)}, exclude={list(exclude)} name Linears, and kind={kind!r} "
                "is about units that reach over several; leave them out, or ask for kind='weight'"
            )
        blocks = [block for block in anatomy.blocks if block.units(kind)]
        parts = [block.part([block.reader(kind).site]) for block in blocks]
    if not parts:
        names = sorted({site.table.path for block in anatomy.blocks for site in block.sites})
        raise ValueError(
            f"kind={kind!r}, include={list(include)}, exclude={list(exclude)} leaves no Linear of "
            f"{type(anatomy.model).__name__}; there are *.{', *.'.join(names)}"
        )
    return parts


def _collected(
    place: Placement, blocks: Sequence[Block], evidence: Evidence | None, batches: Sequence[Batch]
) -> Collected:
    if evidence is None:
        yield from visit(place, blocks)
        return
    states = HiddenStates(place.anatomy, batches, place)
    if not int(distributed.sum_(torch.tensor(states.rows))):
        raise ValueError(f"no reference samples: pass batches, {place.anatomy.task.form}")
    with closing(collect(states, evidence, blocks, "none")) as steps:
        yield from steps


def _values(
    block: Block, part: Block, kind: Kind, way: _Way, results: dict[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The numbers of the sites of a part of a block."""
    for site in part.sites:
        evidence = results.get(site.weight_name, results.get(site.table.reads))
        value_OI = way.values(site, evidence)
        if kind == "weight":
            yield site.weight_name, value_OI.float().cpu()
        else:
            value_UIO = block.reader(kind).gather(value_OI, block.units(kind))
            yield str(block.index), value_UIO.double().sum(dim=(1, 2)).float().cpu()
