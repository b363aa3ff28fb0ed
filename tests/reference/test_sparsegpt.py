"""SparseGPT and the ablations of Wanda by the authors' codes, met by this package.

IST-DASLab/sparsegpt 147d215, and prune_ablate of locuslab/wanda.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Ablation, SparseGPT
from lightning_prune.callbacks.weights.ablation import HarmonicGram
from lightning_prune.evidence import Gram
from lightning_prune.pipeline import prune
from lightning_prune.sweep import collect
from tests.reference.stories import block_of, golden, perplexity_of, pruned, stories, windows
from tests.sweep.helpers import states_of


def same_weights(model: nn.Module, name: str, block: int | None = None) -> list[str]:
    """Weights that keep the same entries and differ by at most 1e-3 relative."""
    state, same = model.state_dict(), []
    for key, weight_OI in golden(name).items():
        selected = torch.equal(state[key] != 0, weight_OI != 0)
        near = (state[key] - weight_OI).norm() <= 1e-3 * weight_OI.norm()
        if (block is None or block_of(key) == block) and selected and near:
            same.append(key)
    return same


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("sparsegpt_50", {"sparsity": 0.5}, 17.8751),
        ("sparsegpt_50_true_sequential", {"sparsity": 0.5, "propagate": "layer"}, 18.0891),
        ("sparsegpt_2of4", {"pattern": "2:4"}, 33.2033),
    ],
)
def test_sparsegpt_equals_the_authors_code(
    name: str, settings: dict[str, Any], expected: float
) -> None:
    """Every weight of every Linear, with their rule for ties, and the perplexity."""
    model, _ = pruned(SparseGPT(**settings, ties="reference"))
    assert len(same_weights(model, name)) == 35
    assert perplexity_of(model) == pytest.approx(expected, rel=3e-3)


def test_sparsegpt_in_blocks_of_32_columns_equals_the_authors_code() -> None:
    """In block 1 two saliencies are so near to each other that rounding may decide."""
    model, _ = pruned(SparseGPT(sparsity=0.5, ties="reference", columns=32))
    assert len(same_weights(model, "sparsegpt_50_bs32", block=0)) == 7
    assert len(same_weights(model, "sparsegpt_50_bs32", block=1)) >= 6
    assert perplexity_of(model) == pytest.approx(16.4026, rel=1e-2)


@pytest.mark.parametrize("block", range(5))
def test_sparsegpt_4of8_equals_the_authors_code_where_8_divides_the_width(block: int) -> None:
    """Their 172-wide down_proj loses its last four columns; here it is refused, or left out.

    The blocks before the one that is compared are theirs.
    """
    model = stories()
    before = {n: w for n, w in golden("sparsegpt_4of8").items() if block_of(n) < block}
    model.load_state_dict(before, strict=False)
    settings: dict[str, Any] = {"layer_start": block, "layer_end": block + 1}
    with pytest.raises(ValueError, match=r"down_proj has 172.*exclude=\['\*.down_proj'\]"):
        prune(model, SparseGPT(pattern="4:8", **settings), windows("calibration", 16))
    method = SparseGPT(pattern="4:8", exclude=["*.down_proj"], **settings)
    prune(model, method, windows("calibration", 16))
    assert len(same_weights(model, "sparsegpt_4of8", block)) == 6


def test_exact_counts_are_one_weight_less_in_every_block_of_columns() -> None:
    """Their rule takes what equals the threshold too."""
    _, exact = pruned(SparseGPT(sparsity=0.5))
    _, theirs = pruned(SparseGPT(sparsity=0.5, ties="reference"))
    for name in exact.mask_names:
        rows, columns = exact.mask_shape(name)
        blocks = -(-columns // 128)
        removed = int((~exact.mask(name)).sum())
        assert removed == rows * columns // 2
        assert int((~theirs.mask(name)).sum()) == removed + blocks


@pytest.mark.parametrize(
    ("mask", "mask_from", "pattern", "expected"),
    [
        ("magnitude", "original", None, 26.6325),
        ("magnitude", "updated", None, 25.4176),
        ("wanda", "original", None, 13.5582),
        ("wanda", "updated", None, 17.4877),
        ("magnitude", "original", "2:4", 60.5549),
        ("magnitude", "updated", "2:4", 43.6184),
        ("wanda", "original", "2:4", 39.5409),
        ("wanda", "updated", "2:4", 32.8494),
    ],
)
def test_ablations_equal_the_authors_code(
    mask: Any, mask_from: Any, pattern: str | None, expected: float
) -> None:
    """Every weight, with their ties and their harmonic norms, and the perplexity."""
    name = f"ablate_{mask[:3] if mask == 'magnitude' else mask}"
    name += "_seq" if mask_from == "original" else "_iter"
    amount: dict[str, Any] = {"pattern": pattern} if pattern else {"sparsity": 0.5}
    model, _ = pruned(
        Ablation(**amount, mask=mask, mask_from=mask_from, harmonic=True, ties="reference")
    )
    assert len(same_weights(model, name + ("_2of4" if pattern else ""))) == 35
    assert perplexity_of(model) == pytest.approx(expected, rel=3e-3)


def test_gram_matrices_are_the_authors_up_to_a_factor() -> None:
    """Theirs is 2 / N of the sum over N windows; ours the mean over 128 N tokens."""
    states = states_of(stories(), windows("calibration", 5))
    block, found = next(collect(states, Gram(), states.anatomy.blocks[:1], "block"))
    for site in block.sites:
        expected_II = golden("sparsegpt_H_layer0")[site.weight_name]
        limit = 1e-5 * float(expected_II.abs().max())
        gram_II = found[site.table.reads] * 256
        torch.testing.assert_close(gram_II, expected_II, rtol=1e-4, atol=limit)


def test_harmonic_norms_are_those_of_the_ablations() -> None:
    """Theirs are scaled by 2 / N; sequence k counts 1 / k, in whatever batches it comes."""
    states = states_of(stories(), windows("calibration", 3))
    block, found = next(collect(states, HarmonicGram(), states.anatomy.blocks[:1], "block"))
    for site in block.sites:
        expected_I = golden("ablate_wanda_seq_stats")[site.weight_name]
        norm_I = found[site.table.reads].norm_I
        torch.testing.assert_close(norm_I.square() * 2 / 16, expected_I, rtol=1e-4, atol=1e-6)
