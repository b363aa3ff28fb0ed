"""The stages of pruning one model: what is measured, decided, repaired and cut, in this order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from lightning_prune import distributed, surgery
from lightning_prune.anatomy import Block
from lightning_prune.evidence import Evidence
from lightning_prune.methods.base import Decision, Method, Scores, check_finite
from lightning_prune.pipeline.collector import Collector
from lightning_prune.pipeline.divided import repaired, scored
from lightning_prune.pipeline.fitting import Fitting
from lightning_prune.pipeline.parts import by_share, readers_of
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.pipeline.rows import say_few_rows
from lightning_prune.pipeline.unfinished import Stage, Unfinished
from lightning_prune.plan import Plan
from lightning_prune.repair import Repair
from lightning_prune.sweep import RESUMED, HiddenStates, Placement, stored

__all__ = ["Batch", "Run"]

Batch = Mapping[str, torch.Tensor]


class Run:
    """One method at work on one model.

    Attributes:
        plan: what has been decided so far.

    Args:
        placement: where the model's weights are.
        method: checked against the model.
        reuse: what earlier calls have collected.
        unfinished: what an earlier start of the same work has finished; None: nothing is kept.
    """

    def __init__(
        self,
        placement: Placement,
        method: Method,
        reuse: Reuse | None,
        unfinished: Unfinished | None,
    ) -> None:
        self.placement, self.method = placement, method
        self.reuse, self.unfinished = reuse, unfinished
        self.anatomy, self.plan = placement.anatomy, Plan()
        self.blocks = method.blocks(self.anatomy)

    def decide(self, batches: Iterable[Batch]) -> None:
        """Fill the plan, and apply it."""
        budget = self.method.budget(self.anatomy)
        with self._outside_masked():
            fitting = Fitting(self.method, self.blocks, self.placement)
            states = self._states(batches) if self.method.calibrates else None
            collector = Collector(self.method, self.blocks, self.placement, states, self.reuse)
            importance = self._importance(collector)
            shares = self._shares(importance, budget)
            self._note_importance(importance)
            scores = self._scores(collector) if self.method.survey else None
        if scores is None:
            self._block_by_block(collector, shares)
        else:
            self._survey(collector, scores, shares, budget)
        if collector.states is not None:
            stage = self._stage("block fit", collector, fitting.blocks)
            fitting.run(collector.states, self.plan, stage)
        surgery.shrink(self.anatomy, self.plan, self.placement.edited)

    def _block_by_block(self, collector: Collector, shares: Mapping[str, float]) -> None:
        """Decide on each block, and change it, before the next one is looked at."""
        method, requests = self.method, self.method.requests(self.blocks)
        assert len(requests) <= 1, "several kinds of evidence take a survey"
        evidence, propagate = requests[0] if requests else None, method.propagation
        kept = "decisions and scores" if method.keep_scores else "decisions"
        stage = self._stage(kept, collector, self.blocks)
        with collector.collected(evidence, self.blocks, propagate, known=stage.finished) as steps:
            for block, results in steps:
                if block.index in stage.finished:
                    self._change(block, *stage.decision(block))
                    continue
                for share, part in by_share(block, shares):
                    decision, scores = self.decided(part, results, share)
                    self._change(part, decision, scores)
                    stage.keep_decision(part, decision, scores if method.keep_scores else {})

    def _survey(
        self, collector: Collector, scores: Scores, shares: Mapping[str, float], budget: float
    ) -> None:
        """Decide on all blocks, and repair."""
        by_block = {block.index: shares[block.sites[0].name] for block in self.blocks}
        decisions = self.surveyed(scores, by_block, budget)
        for block in self.blocks:
            self._note(block, decisions[block.index], scores[block.index])
        if self.method.effective_repair is not None:
            self._repair(collector, self.method.effective_repair)
        for block in self.blocks:
            if masks := decisions[block.index].masks:
                with self.placement.edited(block):
                    self._keep_removed(block, masks)
                    surgery.mask_block(block, masks, {})

    def _scores(self, collector: Collector) -> Scores:
        """Of all blocks on the dense model, once for each kind of evidence."""
        tables, requests = list[Scores](), self.method.requests(self.blocks)
        with collector.sharing(requests):
            for number, evidence in enumerate(requests or (None,)):
                stage = self._stage(f"scores {number}", collector, self.blocks)
                scores = self._scored(collector, evidence, stage)
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

    def _scored(
        self, collector: Collector, evidence: Evidence | None, stage: Stage
    ) -> dict[int, Mapping[str, torch.Tensor]]:
        """By block index, what the method makes of one kind of evidence."""
        scores: dict[int, Mapping[str, torch.Tensor]] = {b.index: {} for b in self.blocks}
        known = stage.finished if evidence is None or evidence.sweep in RESUMED else frozenset()
        if len(stage.finished) == len(self.blocks):
            return {block.index: self._put_by(stage.scores(block)) for block in self.blocks}
        with collector.collected(evidence, self.blocks, "none", known=known) as steps:
            for block, new in scored(self.method, self.placement, steps, known):
                if new is None:
                    scores[block.index] = self._put_by(stage.scores(block))
                    continue
                stage.keep_scores(block, new)
                scores[block.index] = self._put_by(new)
        return scores

    def _repair(self, collector: Collector, repair: Repair) -> None:
        """Visit the Linears that read removed units, and put right what is missing there."""
        readers, keep = self.readers()
        label, stage = type(repair).__name__, self._stage("repair", collector, readers)
        known = stage.finished
        with collector.collected(repair.evidence, readers, "layer", label, known) as steps:
            for part, results in steps:
                if part.index in known:
                    self._change(part, *stage.decision(part))
                    continue
                decision = self.repaired(repair, part, keep, results)
                self._change(part, decision, {})
                stage.keep_decision(part, decision, {})

    def decided(
        self, part: Block, results: Mapping[str, Any], share: float
    ) -> tuple[Decision, Mapping[str, torch.Tensor]]:
        """Without a survey: on a block, or on some of its sites, and by which scores."""
        return self.method.prune_block(part, results, share)

    def surveyed(
        self, scores: Scores, shares: Mapping[int, float], budget: float
    ) -> Mapping[int, Decision]:
        """After a survey: on all blocks."""
        return self.method.decide(self.blocks, scores, shares, budget)

    def readers(self) -> tuple[list[Block], dict[str, torch.Tensor]]:
        """The blocks to repair, with the Linears that read removed units; what these keep."""
        return readers_of(self.blocks, self.plan)

    def repaired(
        self,
        repair: Repair,
        part: Block,
        keep: Mapping[str, torch.Tensor],
        results: Mapping[str, Any],
    ) -> Decision:
        """What becomes of Linears of a block that read removed units."""
        return repaired(repair, part, keep, results)

    def _change(self, part: Block, decision: Decision, scores: Mapping[str, torch.Tensor]) -> None:
        """Note what was decided on a block, or some of its sites, and do it."""
        self._note(part, decision, scores)
        surgery.add_biases(self.anatomy, surgery.lacking_biases(self.anatomy, self.plan))
        surgery.mask_block(part, decision.masks, decision.kept, decision.weights)

    def _keep_removed(self, block: Block, masks: Mapping[str, torch.Tensor]) -> None:
        """For methods whose masks can be taken back: note the values that go."""
        for site in block.sites if self.method.undoable else ():
            if site.weight_name in masks:
                self.plan.set_removed(site.weight_name, site.module.weight)

    def _importance(self, collector: Collector) -> list[float]:
        """Of blocks or sites, as the allocation asks for it; measured once."""
        measured = self.method.effective_allocation.evidence is not None
        if self.unfinished is None or not measured:
            return collector.importance()
        step = {"stage": "importance"}
        record = self.unfinished.get(step)
        if record is None:
            record = {"values": [float(value) for value in collector.importance()]}
            self.unfinished.put(step, record, {})
        return list(record["values"])

    def _stage(self, name: str, collector: Collector, blocks: Sequence[Block]) -> Stage:
        return Stage(name, blocks, self.unfinished, collector.states)

    def _put_by(self, scores: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Scores where they wait for those of all blocks; those of weights are as many as these."""
        device, offload = self.placement.device, self.method.offload
        return {
            name: stored(score, offload) if offload and score.ndim == 2 else score.to(device)
            for name, score in scores.items()
        }

    @contextmanager
    def _outside_masked(self) -> Iterator[None]:
        """Mask what is outside the blocks; an error inside the context takes it back."""
        weights, before = dict(self.anatomy.model.named_parameters()), {}
        for name, keep in self.method.outside(self.anatomy).items():
            self.plan.set_mask(name, distributed.broadcast_(keep))
            before[name] = weights[name].clone()
            self.reuse = None  # what runs now is not the dense model
        with self.placement.edited(self.anatomy.head) if before else nullcontext():
            surgery.apply_masks(self.anatomy, self.plan)
        try:
            yield
        except BaseException:
            for name, weight in before.items():
                weights[name].copy_(weight)
            raise

    def _states(self, batches: Iterable[Batch]) -> HiddenStates:
        states = HiddenStates(self.anatomy, batches, self.placement, self.method.offload)
        rows, task = int(distributed.sum_(torch.tensor(states.rows))), self.anatomy.task
        if rows == 0:
            raise ValueError(
                f"no calibration {task.rows}: pass batches, {task.form}, in which some count. An "
                "iterator that was read before is empty: pass a list."
            )
        repair = self.method.effective_repair
        evidence = self.method.requests(self.blocks) + ((repair.evidence,) if repair else ())
        say_few_rows([kind for kind in evidence if kind is not None], self.blocks, rows, task)
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
        """Agree on a decision with the other processes, and write it into the plan."""
        check_finite(block, scores, "scores")
        check_finite(block, decision.weights, "corrected weights")
        if not decision.agreed:
            for table in (decision.masks, decision.kept, decision.weights):
                for tensor in table.values():
                    distributed.broadcast_(tensor)
        for name, keep_OI in decision.masks.items():
            self.plan.set_mask(name, keep_OI)
        for kind, index_U in decision.kept.items():
            self.plan.set_kept(kind, block.index, index_U, block.units(kind))
        self.plan.set_corrected(decision.weights)
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
