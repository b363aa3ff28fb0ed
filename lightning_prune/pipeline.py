"""The one conductor: sweep → score → allocation → selection → plan → surgery.

Called by the callbacks inside a Trainer, and by `prune` without one. It knows no method by name.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import nn

from lightning_prune import distributed, surgery
from lightning_prune.allocation import Allocation, Uniform
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence import GradientEvidence, InputEvidence
from lightning_prune.method import Decision, Method, check_finite
from lightning_prune.plan import Plan
from lightning_prune.provenance import provenance
from lightning_prune.report import BlockProgress
from lightning_prune.reuse import Reuse, on_cpu
from lightning_prune.sweep import (
    HiddenStates,
    Order,
    evaluating,
    forward_sweep,
    gradient_sweep,
    home_device,
    on_device,
    trial_sweep,
)

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
        model: a Hugging Face causal LM of a known family, without adapters.
        method: a pruning method, e.g. `Wanda(sparsity=0.5)`.
        batches: calibration data, dicts with `input_ids` (B, T) and optional `attention_mask`
            (1 = token). Not needed by methods that look at weights only, nor with `plan=`.
        device: where blocks run, one at a time. Default: where the model is.
        reuse: what earlier calls on copies of this model, with these batches, have collected.

    Raises:
        TypeError: the model is no module, or the method no method.
        ValueError: the method does not fit the model, weights or scores are not finite, there is
            no calibration data or no such device, or nothing would be removed. The model is then
            unchanged, unless the error came from a block in the middle of the sweep.
    """
    if not isinstance(model, nn.Module) or not isinstance(method, Method):
        raise TypeError(
            "prune takes a model and a method, as in prune(model, Wanda(sparsity=0.5), batches); "
            f"got {model if isinstance(model, str) else type(model).__name__!r} and {method!r}"
        )
    anatomy = Anatomy(model)
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
        raise ValueError(f"{method!r} needs calibration batches: dicts with input_ids (B, T)")
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
        self.anatomy, self.method, self.device, self.reuse = anatomy, method, device, reuse
        self.blocks = method.blocks(anatomy)
        self.plan = Plan()

    def decide(self, batches: Iterable[Batch]) -> None:
        """Fill the plan, and apply it."""
        with self._outside_masked():
            states = self._states(batches) if self.method.calibrates else None
            shares = self._shares(states)
        # Closed at once after an error, so that blocks and hooks go back to where they were.
        with closing(self._sweep(states)) as sweep:
            if self.method.survey:
                scores = {block.index: self.method.score(block, found) for block, found in sweep}
                by_block = {b.index: shares[b.sites[0].name] for b in self.blocks}
                decisions = self.method.decide(self.blocks, scores, by_block)
                for block in self.blocks:
                    self._note(block, decisions[block.index], scores[block.index])
                surgery.apply(self.anatomy, self.plan)
                return
            for block, evidence in sweep:
                for share, part in _by_share(block, shares):
                    decision, found = self.method.prune_block(part, evidence, share)
                    self._note(part, decision, found)
                    surgery.mask_block(part, decision.masks, decision.kept, decision.weights)
        surgery.shrink(self.anatomy, self.plan)

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
        states = HiddenStates(self.anatomy, batches, self.device, self.method.offload)
        if int(distributed.sum_(torch.tensor(states.counted()))) == 0:
            raise ValueError(
                "no calibration tokens: pass batches, dicts with input_ids (B, T), not all of them "
                "padding. An iterator that was read before is empty: pass a list."
            )
        return states

    def _shares(self, states: HiddenStates | None) -> dict[str, float]:
        """The fraction to remove from each site, by its name."""
        allocation = self.method.allocation or Uniform()
        if allocation.per == "site":
            parts = [block.part([site]) for block in self.blocks for site in block.sites]
        else:
            parts = self.blocks
        sizes = [sum(s.module.weight.numel() for s in part.sites) for part in parts]
        known = self.reuse.importance if self.reuse is not None else {}
        key = (repr(allocation), *self._names())
        if key not in known:
            known[key] = self._importance(allocation, states)
        shares = allocation.shares(self.method.budget, sizes, known[key])
        agreed = distributed.broadcast_(torch.tensor(shares, dtype=torch.float64)).tolist()
        return {
            site.name: share
            for part, share in zip(parts, agreed, strict=True)
            for site in part.sites
        }

    def _importance(self, allocation: Allocation, states: HiddenStates | None) -> list[float]:
        """Of each block, or of each site, by what the allocation asks for."""
        if allocation.evidence is None:
            return []
        assert states is not None, "a method calibrates if its allocation does"
        importance: list[float] = []
        start = list(states.hidden)
        with self._progress(type(allocation).__name__) as progress:
            if allocation.windows:
                trials = trial_sweep(
                    states, allocation.evidence, allocation.damaged, self.blocks, allocation.windows
                )
                with closing(trials):
                    for block, errors in trials:
                        importance += errors
                        progress.advance(block.name)
            else:
                sweep = forward_sweep(states, allocation.evidence, self.blocks, "none")
                with closing(sweep):
                    for block, found in sweep:
                        importance.append(allocation.importance(block, found))
                        progress.advance(block.name)
        states.rewind(start)
        return importance

    def _progress(self, name: str) -> BlockProgress:
        return BlockProgress(len(self.blocks), name, enabled=distributed.rank() == 0)

    def _sweep(
        self, states: HiddenStates | None
    ) -> Generator[tuple[Block, Mapping[str, Any]], None, None]:
        left = {block.index: len(block.sites) for block in self.blocks}
        with self._progress(type(self.method).__name__) as progress:
            for block, evidence in self._evidence(states):
                yield block, evidence
                left[block.index] -= len(block.sites)
                if not left[block.index]:
                    progress.advance(block.name)

    def _evidence(self, states: HiddenStates | None) -> Iterator[tuple[Block, Mapping[str, Any]]]:
        kind = self.method.evidence
        if kind is None:
            for block in self.blocks:
                with on_device([block.module], self.device):
                    yield block, {}
            return
        assert states is not None, "a method calibrates if it asks for evidence"
        if issubclass(kind, GradientEvidence):
            yield from gradient_sweep(states, kind, self.blocks)
        else:
            order = "none" if self.method.survey else self.method.order
            yield from self._forward(states, kind, order)

    def _forward(
        self, states: HiddenStates, kind: type[InputEvidence], order: Order
    ) -> Iterator[tuple[Block, Mapping[str, Any]]]:
        """A forward sweep, or what an earlier one over the dense model has found."""
        if self.reuse is None or order != "none":
            yield from forward_sweep(states, kind, self.blocks, order)
            return
        key = (kind.__name__, *self._names())
        if key in self.reuse.evidence:
            for block, evidence in zip(self.blocks, self.reuse.evidence[key], strict=True):
                with on_device([block.module], self.device):
                    yield block, evidence
            return
        seen: list[Mapping[str, Any]] = []
        for block, evidence in forward_sweep(states, kind, self.blocks, order):
            seen.append({name: on_cpu(value) for name, value in evidence.items()})
            yield block, evidence
        self.reuse.evidence[key] = seen

    def _names(self) -> tuple[str, ...]:
        return tuple(site.name for block in self.blocks for site in block.sites)

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
        if self.method.keep_scores:
            for name, score in scores.items():
                if name in decision.masks:
                    self.plan.set_scores("weight", name, score)
                else:
                    self.plan.set_scores(name, block.index, score)


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
