"""What a pruning will take, before it is begun: the stages of `Run`, added up instead of run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.anatomy import Block
from lightning_prune.evidence import Evidence
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.pipeline.block_demand import whole_of
from lightning_prune.pipeline.demand import Demand, Setting, asked, bytes_of, weights_of
from lightning_prune.pipeline.fit_demand import fitting
from lightning_prune.pipeline.sweep_demand import collecting_evidence
from lightning_prune.repair import Repair
from lightning_prune.sweep import go_back_again

__all__ = ["Disk", "disk_of", "forecast"]

SCORES = "scores and decisions"


@dataclass(frozen=True)
class Disk:
    """Bytes on the disk.

    Attributes:
        plan: what is decided, and weights that were corrected.
        corrected: the latter alone.
        unfinished: finished blocks, until the plan is written.
        changes: blocks that are changed, until the process ends; where weights stay in their files.
        hidden: hidden states, with offload="disk".
        model: the pruned model.
    """

    plan: int
    corrected: int
    unfinished: int
    changes: int
    hidden: int
    model: int

    @property
    def peak(self) -> int:
        """The most that is there at once, at most."""
        working = self.unfinished + self.hidden
        return self.plan + self.changes + max(working, self.model)


def forecast(setting: Setting) -> Demand:
    """What a method takes on one process, in the order of its stages.

    Args:
        setting: what is asked.
    """
    method, demand = setting.method, Demand(setting)
    blocks = method.blocks(setting.anatomy)
    plan = _plan_bytes(setting, blocks)
    allocation = method.effective_allocation.evidence
    if allocation is not None:
        _importance(demand, type(method.effective_allocation).__name__, allocation, blocks)
    if method.survey:
        _survey(demand, blocks, plan)
    else:
        _block_by_block(demand, blocks, plan)
    if method.block_fit is not None:
        fitting(demand, method.block_fit, blocks, plan)
    return demand


def disk_of(setting: Setting) -> Disk:
    """What a method leaves, and keeps on its way, on the disk."""
    method = setting.method
    blocks = method.blocks(setting.anatomy)
    model = sum(p.nbytes for p in setting.anatomy.model.parameters())
    removed = method.budget(setting.anatomy) if method.cuts else 0.0
    sizes = [method.size(block) for block in blocks]
    gone = removed * sum(sizes) * setting.itemsize
    if method.cuts and sizes and max(sizes) == 1:  # whole blocks
        gone = removed * sum(map(bytes_of, blocks))
    corrected = _corrected(setting, blocks)
    weights = sum(map(weights_of, blocks))
    decisions = 0 if method.cuts else weights
    kept = 4 * weights if method.keep_scores and not method.cuts else 0
    survey = 4 * weights if method.survey and not method.cuts else 0
    changed = sum(map(bytes_of, blocks)) if method.cuts else sum(bytes_of(b, True) for b in blocks)
    return Disk(
        plan=int(_plan_bytes(setting, blocks) + corrected),
        corrected=corrected,
        unfinished=(survey or decisions + corrected + kept) if setting.resumes else 0,
        changes=int(changed - gone) if setting.mapped else 0,
        hidden=setting.hidden if method.offload == "disk" and method.calibrates else 0,
        model=int(model - gone),
    )


def _importance(demand: Demand, label: str, evidence: Evidence, blocks: Sequence[Block]) -> None:
    """The allocation looks at the dense model first; of a block's evidence a number is left."""

    def measured(block: Block, results: float, base: dict[str, float]) -> None:
        largest = weights_of(block) if results else 0  # scores, all of a block together
        work = {"evidence": results, SCORES: 8 * largest}
        demand.phase(f"{label}: blocks compared", base | work)

    collecting_evidence(demand, label, evidence, blocks, "none", {}, measured)


def _block_by_block(demand: Demand, blocks: Sequence[Block], plan: float) -> None:
    """`Run._block_by_block`: what was decided on a block is held until the next one is decided."""
    setting, method = demand.setting, demand.setting.method
    (evidence,) = asked(method, blocks)
    name, propagate = type(method).__name__, method.propagation
    by_layer = propagate == "layer" and evidence is not None
    left = _decision(setting, max(blocks, key=weights_of))
    if by_layer and not setting.resumes:  # then it is one input's
        left = max(_decision(setting, b.part(s)) for b in blocks for s in b.inputs().values())
    held = {SCORES: left} if len(blocks) > 1 else {}

    if not setting.mapped and not setting.converted:
        demand.changed = sum(bytes_of(block, True) for block in blocks)

    def decided(block: Block, results: float, base: dict[str, float]) -> None:
        demand.decided(block)
        peak = _working(demand, block) + (left if held else 0)
        changed = {"changed weights": bytes_of(block, True)} if setting.mapped else {}
        demand.phase(
            f"{name}: decisions",
            base | {"evidence": results, SCORES: peak},
            {"plan": plan} | changed,
        )
        whole = whole_of(demand, block) if by_layer else block
        changed = {"changed weights": bytes_of(whole, True)} if setting.mapped else {}
        run = setting.rehearsal.run(block).forward if evidence is not None else 0
        feeding = {"activations": base.get("activations", 0) + run}
        demand.phase(
            f"{name}: next block fed",
            base | feeding | {SCORES: _decision(setting, whole)},
            {"plan": plan} | changed,
        )

    collecting_evidence(demand, name, evidence, blocks, propagate, held, decided)


def _survey(demand: Demand, blocks: Sequence[Block], plan: float) -> None:
    """`Run._survey`: all are scored, then decided on, repaired and cut."""
    setting, method = demand.setting, demand.setting.method
    name, requests = type(method).__name__, asked(method, blocks)
    single = not method.cuts
    weights = sum(map(weights_of, blocks))
    demand.shared_inputs = "yes" if go_back_again(filter(None, requests)) else "no"
    for number, evidence in enumerate(requests):
        _scored(demand, name, evidence, blocks, 4.0 * weights * number * single)
    if single:
        together = isinstance(method, WeightPruning) and method.effective_scope == "global"
        combined = 8.0 * (len(requests) > 1)
        deciding = (5 + combined) * weights + together * 32 * 2**24  # thresholds by counting
        device, host = _kept_scores(setting, deciding)
        demand.phase(f"{name}: decisions", device, host | {"plan": plan})
        for block in blocks:
            demand.decided(block)
    if method.effective_repair is not None:
        _repaired(demand, method.effective_repair, blocks, plan)
    changed = {"changed weights": max(map(bytes_of, blocks))} if setting.mapped else {}
    if not setting.mapped and not setting.converted:
        demand.changed = disk_of(setting).model - _outside(setting) if method.cuts else weights
        demand.changed *= 1 if method.cuts else setting.itemsize
    largest = max(site.module.weight.nbytes for block in blocks for site in block.sites)
    demand.phase(f"{name}: changes", {}, {"plan": plan, SCORES: largest} | changed)


def _scored(
    demand: Demand, name: str, evidence: Evidence | None, blocks: Sequence[Block], earlier: float
) -> None:
    """All blocks by one kind of evidence; scores of weights are all held until they are decided on.

    Args:
        demand: is added to.
        name: of the method.
        evidence: the kind.
        blocks: that are scored.
        earlier: bytes of the scores that other kinds have left.
    """
    held = earlier

    def score(block: Block, results: float, base: dict[str, float]) -> None:
        nonlocal held
        here, host = _kept_scores(demand.setting, held)
        work = {"evidence": results, SCORES: here.get(SCORES, 0.0) + _working(demand, block)}
        demand.phase(f"{name}: scores", base | work, host)
        held += 0.0 if demand.setting.method.cuts else 4.0 * weights_of(block)

    here, _ = _kept_scores(demand.setting, earlier)
    collecting_evidence(demand, name, evidence, blocks, "none", here, score)


def _kept_scores(setting: Setting, size: float) -> tuple[dict[str, float], dict[str, float]]:
    """Scores that wait for others, on the device and on the host; those of units are few."""
    offload = setting.method.offload
    if offload == "disk" and not setting.method.cuts:
        return {}, {}
    return ({}, {SCORES: size}) if offload else ({SCORES: size}, {})


def _repaired(demand: Demand, repair: Repair, blocks: Sequence[Block], plan: float) -> None:
    """The Linears that read removed units, one input after the other."""
    setting, name = demand.setting, type(repair).__name__
    kept = 1 - setting.method.budget(setting.anatomy)
    kinds = getattr(setting.method, "kinds", ())
    readers = []
    for block in blocks:
        names = {block.reader(kind).site.name for kind in kinds if block.units(kind)}
        readers.append(block.part(site for site in block.sites if site.name in names))
    readers = [block for block in readers if block.sites]
    if not readers:
        return

    if not setting.mapped and not setting.converted:
        demand.changed = sum(bytes_of(block, True) for block in readers)

    def fixed(block: Block, results: float, base: dict[str, float]) -> None:
        shapes = [(s.module.out_features, s.module.in_features) for s in block.sites]
        copies = sum(4 * outputs * inputs for outputs, inputs in shapes if setting.itemsize != 4)
        work = max(repair.working(*shape, kept) for shape in shapes) + copies
        demand.operations += sum(repair.operations(*shape, kept) for shape in shapes)
        decided = _decision(setting, whole_of(demand, block), readers=True)
        changed = {"changed weights": bytes_of(block, True)} if setting.mapped else {}
        demand.phase(
            f"{name}: repairs",
            base | {"evidence": results, "repair": work + decided},
            {"plan": plan} | changed,
        )

    collecting_evidence(demand, name, repair.evidence, readers, "layer", {}, fixed)


def _outside(setting: Setting) -> int:
    """Bytes of what is no block."""
    whole = sum(p.nbytes for p in setting.anatomy.model.parameters())
    return whole - sum(map(bytes_of, setting.anatomy.blocks))


def _working(demand: Demand, block: Block) -> float:
    """What scoring and choosing take in a block, or in some of its sites; counts operations."""
    setting, method = demand.setting, demand.setting.method
    widths = [site.module.in_features for site in block.sites]
    if method.solving is None:
        return method.score_bytes * weights_of(block) + method.score_square * max(widths) ** 2
    done = most = 0.0
    for sites in block.inputs().values():
        part = block.part(sites)
        width, weights = sites[0].module.in_features, weights_of(part)
        most = max(
            most,
            done + method.solving.per_weight * weights + method.solving.per_square * width**2,
        )
        done += _decision(setting, part)
        demand.operations += method.solving.products * 2 * weights * width
        demand.operations += method.solving.inversions * 2 * float(width) ** 3
    return most


def _decision(setting: Setting, block: Block, readers: bool = False) -> float:
    """What is left of a decision: masks, scores, and corrected weights."""
    if readers:
        kinds = getattr(setting.method, "kinds", ())
        names = {block.reader(kind).site.name for kind in kinds if block.units(kind)}
        return float(sum(s.module.weight.nbytes for s in block.sites if s.name in names))
    if setting.method.cuts:
        return 0.0
    return (5.0 + setting.itemsize * bool(setting.method.solving)) * weights_of(block)


def _plan_bytes(setting: Setting, blocks: Sequence[Block]) -> float:
    """A bit for every weight, or an index for every unit; and the scores, if they are kept."""
    method, weights = setting.method, sum(map(weights_of, blocks))
    if method.cuts:
        kinds = getattr(method, "kinds", ())
        units = sum(block.units(kind) for block in blocks for kind in kinds)
        return 8.0 * units * (2 if method.keep_scores else 1)
    return weights / 8 + 4.0 * weights * method.keep_scores


def _corrected(setting: Setting, blocks: Sequence[Block]) -> int:
    """Bytes of the weights that are given other values."""
    if setting.method.block_fit is not None:
        return sum(map(bytes_of, blocks))
    if setting.method.solving is not None:
        return sum(bytes_of(block, True) for block in blocks)
    if setting.method.effective_repair is not None:
        return int(sum(_decision(setting, block, readers=True) for block in blocks))
    return 0
