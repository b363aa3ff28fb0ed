"""What the decisions of every method depend on, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_prune.methods.units import UnitPruning
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from tests.contract.cases import (
    Case,
    assert_same_state,
    batches,
    even_model,
    pruned,
    state,
)
from tests.contract.marks import (
    CALIBRATED,
    alternately,
    every_case,
)
from tests.sweep.helpers import padded, split


@every_case
def test_the_same_again_gives_the_same_again(case: Case) -> None:
    """Bit for bit, with one method object or another, and without touching the random state."""
    random_state = torch.get_rng_state()
    first, second = even_model("llama"), even_model("llama")
    torch.set_rng_state(random_state)
    method = case.make()
    prune(first, method, batches())
    assert torch.equal(torch.get_rng_state(), random_state)
    prune(second, method, batches())
    assert_same_state(second, state(first))


@pytest.mark.parametrize(
    ("case", "model_type"),
    alternately(CALIBRATED, ["llama", "gemma3_text", "phi3", "opt"]),
    ids=str,
)
def test_batch_size_and_padding_side_do_not_show(case: Case, model_type: str) -> None:
    """The same sequences in one batch or one by one, padded left, right or not: equal scores."""
    kinds = {
        "left": [padded("left")],
        "left, one by one": split(padded("left"), 1),
        "not padded, backwards": tokens_alone(padded("left"))[::-1],
    }
    right = [shifted_right(padded("left"))]
    reference = scores(case, model_type, right)
    for name, data in kinds.items():
        for key, score in scores(case, model_type, data).items():
            limit = 1e-4 * float(reference[key].abs().max())
            torch.testing.assert_close(
                score, reference[key], rtol=2e-3, atol=limit, msg=lambda m, n=name: f"{n}: {m}"
            )


FIRST_SITES = tuple(f"model.{way}layers.0.self_attn.q" for way in ("", "decoder."))


def tokens_alone(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Each sequence alone, without padding and without a mask."""
    rows = zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
    return [{"input_ids": ids[keep][None]} for ids, keep in rows]


def shifted_right(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same sequences, with the padding moved from left to right."""
    order = batch["attention_mask"].argsort(dim=1, descending=True, stable=True)
    return {name: tensor.gather(1, order) for name, tensor in batch.items()}


def scores(
    case: Case, model_type: str, data: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    model = even_model(model_type)
    plan = prune(model, case.make(keep_scores=True), data)
    names = plan.mask_names
    if plan.corrected:  # what the first sites became shows in the evidence of all others
        names = [name for name in names if name.startswith(FIRST_SITES)]
    found = {name: plan.scores("weight", name) for name in names}
    units = [(kind, key) for kind, key in plan.score_keys if kind in ("group", "neuron", "block")]
    return found | {f"{kind} {key}": plan.scores(kind, key) for kind, key in units}


@every_case
def test_scores_are_kept_on_request(case: Case, tmp_path: Path) -> None:
    """Finite fp32, one for each weight or unit; what stays scores no less than what goes."""
    _, plan = pruned(case, keep_scores=True)
    plan = Plan.load(plan.save(tmp_path))
    for name in plan.mask_names:
        score_OI = plan.scores("weight", name)
        assert score_OI.shape == plan.mask_shape(name)
        assert score_OI.dtype == torch.float32
        assert torch.isfinite(score_OI).all()
    for kind in plan.kinds:
        for block, kept in plan.blocks(kind).items():
            if not issubclass(case.cls, UnitPruning):  # DropBlocks scores whole blocks
                continue
            score_U = plan.scores(kind, block)
            assert score_U.shape == (kept.total,)
            assert torch.isfinite(score_U).all()
            gone = torch.ones(kept.total, dtype=torch.bool).index_fill(0, kept.index_U, False)
            if kept.removed:
                assert score_U[gone].max() <= score_U[kept.index_U].min()
    _, without = pruned(case)
    asked = ("weight", plan.mask_names[0]) if plan.mask_names else (plan.kinds[0], 0)
    with pytest.raises(KeyError, match="keep_scores=True"):
        without.scores(*asked)


@every_case
def test_offloading_changes_nothing(case: Case) -> None:
    """Where hidden states wait between blocks does not show."""
    (here, _), away = pruned(case), even_model("llama")
    prune(away, case.make(offload="disk"), batches())
    assert_same_state(away, state(here))
