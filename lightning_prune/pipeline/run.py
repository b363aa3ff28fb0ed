"""Pruning a model: what is collected, decided, repaired and cut, in this order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from lightning_prune import distributed, surgery
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.methods.base import Decision, Method, Scores, check_finite
from lightning_prune.pipeline.collector import Collector
from lightning_prune.pipeline.provenance import provenance
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.pipeline.rows import say_few_rows
from lightning_prune.plan import Plan
from lightning_prune.repair import Repair
from lightning_prune.surgery.features import kept_features
from lightning_prune.sweep import HiddenStates, InMemory, evaluating, home_device

__all__ = ["prune"]

Batch = Mapping[str, torch.Tensor]


def prune(
    model: nn.Module,
    method: Method,
    batches: Iterable[Batch] | None = None,
    device: torch.device | str | None = None,
    reuse: Reuse | None = None,
) -> Plan:
    """Prune a model in place and return what was decided.

    ```python
    plan = prune(model, Wanda(sparsity=0.5), batches)
    plan.mask("model.layers.0.mlp.up_proj.weight")  # bool, True = kept
    ```

    In several processes each one passes its own share of the batches; the statistics are added up,
    and all processes take the decisions of process 0.

    Args:
        model: a Hugging Face model of a known family, without adapters.
        method: a pruning method, e.g. `Wanda(sparsity=0.5)`.
        batches: calibration data that the family's task reads, as dicts with `input_ids` (B, T) or
            with `pixel_values`. Not needed by methods that look at weights only, nor with `plan=`.
        device: where blocks run, one at a time. Default: where the model is.
        reuse: what earlier calls on copies of this model, with these batches, have collected.

    Raises:
        TypeError: the model is no module, or the method no method.
        ValueError: the model is quantised or not in memory, the method does not fit it, weights or
            scores are not finite, there is no calibration data or no such device, or nothing would
            be removed. The model is then unchanged, unless the error came from a block in the
            middle of the sweep, or of the repair.
    """
    if not isinstance(model, nn.Module) or not isinstance(method, Method):
        raise TypeError(
            "prune takes a model and a method, as in prune(model, Wanda(sparsity=0.5), batches); "
            f"got {model if isinstance(model, str) else type(model).__name__!r} and {method!r}"
        )
    anatomy = Anatomy(model)
    anatomy.check_weights()
    if method.plan is not None:
        plan = method.plan if isinstance(method.plan, Plan) else Plan.load(method.plan)
        made_by = plan.provenance.get("method", type(method).__name__)
        if made_by != type(method).__name__:
            raise ValueError(
                f"the plan was made by {made_by}; apply it with {made_by}(plan=…), not with "
                f"{type(method).__name__}"
            )
        surgery.apply(anatomy, plan)
        return plan
    method.check(anatomy)
    _check_weights(anatomy)
    if method.calibrates and batches is None:
        raise ValueError(f"{method!r} needs calibration batches: {anatomy.task.form}")
    run = _Run(anatomy, method, _device(model, device), reuse)
    run.plan.provenance = provenance(model, method)  # of the model as it is before
    with evaluating(model), torch.no_grad():
        run.decide(() if batches is None else batches)
    if not run.plan.removes_anything:
        raise ValueError(f"{method!r} removes nothing from this model; ask for more")
    return run.plan


class _Run:
    """One method at work on one model."""

    def __init__(
        self, anatomy: Anatomy, method: Method, device: torch.device, reuse: Reuse | None
    ) -> None:
        self.anatomy, self.method, self.reuse = anatomy, method, reuse
        self.placement = InMemory(anatomy, device)
        self.blocks = method.blocks(anatomy)
        self.plan = Plan()

    def decide(self, batches: Iterable[Batch]) -> None:
        """Fill the plan, and apply it."""
        budget = self.method.budget(self.anatomy)
        with self._outside_masked():
            states = self._states(batches) if self.method.calibrates else None
            collector = Collector(self.method, self.blocks, self.placement, states, self.reuse)
            importance = collector.importance()
            shares = self._shares(importance, budget)
            self._note_importance(importance)
            scores = self._scores(collector) if self.method.survey else None
        if scores is None:
            self._block_by_block(collector, shares)
        else:
            self._survey(collector, scores, shares, budget)

    def _block_by_block(self, collector: Collector, shares: Mapping[str, float]) -> None:
        """Decide on each block, and change it, before the next one is looked at."""
        method, requests = self.method, self.method.requests(self.blocks)
        assert len(requests) <= 1, "several kinds of evidence take a survey"
        evidence = requests[0] if requests else None
        with collector.collected(evidence, self.blocks, method.propagation) as steps:
            for block, results in steps:
                for share, part in _by_share(block, shares):
                    decision, scores = method.prune_block(part, results, share)
                    self._note(part, decision, scores)
                    surgery.mask_block(part, decision.masks, decision.kept, decision.weights)
        surgery.shrink(self.anatomy, self.plan)

    def _survey(
        self, collector: Collector, scores: Scores, shares: Mapping[str, float], budget: float
    ) -> None:
        """Decide on all blocks, repair, and cut."""
        by_block = {block.index: shares[block.sites[0].name] for block in self.blocks}
        decisions = self.method.decide(self.blocks, scores, by_block, budget)
        for block in self.blocks:
            self._note(block, decisions[block.index], scores[block.index])
        if self.method.effective_repair is not None:
            self._repair(collector, self.method.effective_repair)
        surgery.apply_masks(self.anatomy, self.plan)
        surgery.shrink(self.anatomy, self.plan)

    def _scores(self, collector: Collector) -> Scores:
        """Of all blocks on the dense model, once for each kind of evidence."""
        tables: list[Scores] = []
        requests = self.method.requests(self.blocks)
        for evidence in requests or (None,):
            scores: dict[int, Mapping[str, torch.Tensor]] = {b.index: {} for b in self.blocks}
            with collector.collected(evidence, self.blocks, "none") as steps:
                for block, results in steps:
                    scores[block.index] = self.method.score(block, results)
            for block in self.blocks:  # the first block speaks
                check_finite(block, scores[block.index], "scores")
            tables.append(scores)
        if len(tables) == 1:
            self._note_block_scores(tables[0])
            return tables[0]
        if self.method.keep_scores:
            for evidence, table in zip(requests, tables, strict=True):
                self._keep(table, f"/{evidence.component}")
        return self.method.combine(tables)

    def _repair(self, collector: Collector, repair: Repair) -> None:
        """Visit the Linears that read removed units, and put right what is missing there."""
        readers, keep = _readers(self.blocks, self.plan)
        label = type(repair).__name__
        with collector.collected(repair.evidence, readers, "layer", label) as steps:
            for part, results in steps:
                decision = Decision()
                for site in part.sites:
                    weight, bias = site.module.weight.detach(), site.module.bias
                    fixed = repair.fix(
                        weight.float(),
                        None if bias is None else bias.detach().float(),
                        keep[site.name].to(weight.device),
                        results[site.table.reads],
                    )
                    decision.weights[site.weight_name] = fixed.weight_OI.to(weight.dtype)
                    if fixed.bias_O is not None:
                        decision.weights[f"{site.name}.bias"] = fixed.bias_O.to(weight.dtype)
                self._note(part, decision, {})
                surgery.add_biases(self.anatomy, surgery.lacking_biases(self.anatomy, self.plan))
                surgery.mask_block(part, {}, {}, decision.weights)

    @contextmanager
    def _outside_masked(self) -> Iterator[None]:
        """Mask what is outside the blocks; an error inside the context takes it back."""
        weights, before = dict(self.anatomy.model.named_parameters()), {}
        for name, keep in self.method.outside(self.anatomy).items():
            self.plan.set_mask(name, distributed.broadcast_(keep))
            before[name] = weights[name].clone()
            self.reuse = None  # what runs now is not the dense model
        surgery.apply_masks(self.anatomy, self.plan)
        try:
            yield
        except BaseException:
            for name, weight in before.items():
                weights[name].copy_(weight)
            raise

    def _states(self, batches: Iterable[Batch]) -> HiddenStates:
        states = HiddenStates(self.anatomy, batches, self.placement, self.method.offload)
        rows = int(distributed.sum_(torch.tensor(states.rows)))
        if rows == 0:
            raise ValueError(
                f"no calibration tokens: pass batches, {self.anatomy.task.form}, in which some "
                "count. An iterator that was read before is empty: pass a list."
            )
        repair = self.method.effective_repair
        evidence = self.method.requests(self.blocks) + ((repair.evidence,) if repair else ())
        say_few_rows([kind for kind in evidence if kind is not None], self.blocks, rows)
        return states

    def _shares(self, importance: list[float], budget: float) -> dict[str, float]:
        """The fraction to remove from each site, by its name."""
        allocation = self.method.effective_allocation
        if allocation.per == "site":
            parts = [block.part([site]) for block in self.blocks for site in block.sites]
        else:
            parts = self.blocks
        sizes = [self.method.size(part) for part in parts]
        shares = allocation.shares(budget, sizes, importance)
        agreed = distributed.broadcast_(torch.tensor(shares, dtype=torch.float64)).tolist()
        return {
            site.name: share
            for part, share in zip(parts, agreed, strict=True)
            for site in part.sites
        }

    def _note_importance(self, importance: Sequence[float]) -> None:
        """Write the importance of blocks, if it was measured, where a reader of the plan looks."""
        if len(importance) == len(self.blocks) and self.method.effective_allocation.per == "block":
            values = zip(self.blocks, importance, strict=True)
            self.plan.provenance["importance"] = {str(b.index): float(v) for b, v in values}

    def _note_block_scores(self, scores: Scores) -> None:
        """Where a block's score is its importance, write it there too."""
        values = {str(i): float(table["block"]) for i, table in scores.items() if "block" in table}
        if values:
            self.plan.provenance["importance"] = values

    def _note(self, block: Block, decision: Decision, scores: Mapping[str, torch.Tensor]) -> None:
        """Take process 0's word for a decision, and write it into the plan."""
        check_finite(block, scores, "scores")
        check_finite(block, decision.weights, "corrected weights")
        for name, keep_OI in decision.masks.items():
            self.plan.set_mask(name, distributed.broadcast_(keep_OI))
        for kind, index_U in decision.kept.items():
            distributed.broadcast_(index_U)
            self.plan.set_kept(kind, block.index, index_U, block.units(kind))
        for name, weight_OI in decision.weights.items():
            distributed.broadcast_(weight_OI)
            self.plan.set_corrected(name, weight_OI)
        if self.method.keep_scores and scores:
            self._keep({block.index: scores})

    def _keep(self, scores: Scores, component: str = "") -> None:
        """Leave scores in the plan, those of an objective alone under its name."""
        for index, table in scores.items():
            for name, score in table.items():
                if score.ndim == 2:
                    self.plan.set_scores(f"weight{component}", name, score)
                else:
                    self.plan.set_scores(f"{name}{component}", index, score)


def _readers(blocks: Sequence[Block], plan: Plan) -> tuple[list[Block], dict[str, torch.Tensor]]:
    """The blocks that lose units, each with the Linears that read them; and what these keep."""
    parts: list[Block] = []
    keep: dict[str, torch.Tensor] = {}
    for block in blocks:
        kept = {site.name: keep_I for site, axis, keep_I in kept_features(block, plan) if axis == 1}
        if kept:
            parts.append(block.part(site for site in block.sites if site.name in kept))
            keep |= kept
    return parts, keep


def _by_share(block: Block, shares: Mapping[str, float]) -> Iterator[tuple[float, Block]]:
    """A block in parts whose sites have the same share; most often there is one."""
    for share in dict.fromkeys(shares[site.name] for site in block.sites):
        yield share, block.part(site for site in block.sites if shares[site.name] == share)


def _device(model: nn.Module, asked: torch.device | str | None) -> torch.device:
    if asked is None:
        return home_device(model)
    device = torch.device(asked)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(asked)!r}: torch finds no CUDA device here; leave it out")
    return device


def _check_weights(anatomy: Anatomy) -> None:
    for block in anatomy.blocks:
        for site in block.sites:
            if not torch.isfinite(site.module.weight).all():
                raise ValueError(
                    f"{site.weight_name} holds NaN or infinite values; the checkpoint is damaged "
                    "or was saved from a diverged run. Nothing was pruned."
                )
