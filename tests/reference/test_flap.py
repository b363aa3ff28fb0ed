"""FLAP's statistics, scores and kept units as its own code has them, met by this package.

CASIA-IVA-Lab/FLAP 3bb57db in fp32 on 16 windows of 128 tokens. It knows heads with keys and values
of their own only, so its model is the one with these repeated for every query head: the same
function. The reference's head weighs 32/3 neurons, truncated to 10.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_prune import FLAP, Bias
from lightning_prune.allocation.global_standardised import global_counts
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import AliasedMoments, InputMoments, Moments
from lightning_prune.scores.flap import feature_score
from lightning_prune.sweep import collect
from tests.reference.stories import golden, stories, windows
from tests.shared import shared_path
from tests.sweep.helpers import states_of

METRICS = ("WIFV", "WIFN", "IFV")
KINDS = {"group": "self_attn.o_proj", "neuron": "mlp.down_proj"}


@cache
def one_head_per_group() -> nn.Module:
    """The model with the key/value heads repeated for every query head that reads them."""
    model = stories()
    config = AutoConfig.from_pretrained(str(shared_path("models/stories260k")))
    config.num_key_value_heads = config.num_attention_heads
    state = model.state_dict()
    for name in list(state):
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            heads_HSD = state[name].unflatten(0, (4, 8))
            state[name] = heads_HSD.repeat_interleave(2, dim=0).flatten(0, 1)
    wide = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    wide.load_state_dict(state)
    return wide


@cache
def found(kind: type[InputMoments], size: int) -> list[dict[str, Moments]]:
    """The moments of every block, in batches of `size`."""
    states = states_of(one_head_per_group(), windows("calibration", size))
    sweep = collect(states, kind(), states.anatomy.blocks, "none")
    return [dict(evidence) for _, evidence in sweep]


def of_site(index: int, path: str, kind: type[InputMoments] = AliasedMoments) -> Moments:
    block = Anatomy(one_head_per_group()).blocks[index]
    site = next(site for site in block.sites if site.table.path == path)
    return found(kind, 16)[index][site.table.reads]


def close(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-4 of the reference, or of the thousandth part of its largest number."""
    limit = 1e-7 * float(expected.abs().max())
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=limit)


def test_the_repeated_model_is_the_same_function() -> None:
    """Otherwise nothing below says anything about ours."""
    ids = windows("evaluation", 2)[0]["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(one_head_per_group()(ids).logits, stories()(ids).logits)


@pytest.mark.parametrize("path", KINDS.values())
def test_moments_equal_flaps_code(path: str) -> None:
    """Mean, norm (theirs is the mean over windows of the sum of squares), aliased fluctuation."""
    for index in range(5):
        prefix = f"model.layers.{index}.{path}"
        moments, expected = of_site(index, path), golden("flap_stats")
        torch.testing.assert_close(moments.mean_I, expected[f"{prefix}.mean"], rtol=1e-4, atol=1e-6)
        close(moments.norm_I.square() / 16, expected[f"{prefix}.norm2"])
        close(moments.variance_I, expected[f"{prefix}.fluctuation"])


def test_the_aliased_fluctuation_is_no_multiple_of_the_variance() -> None:
    """It is smaller, and by more for some features than for others: rankings differ."""
    for index in range(5):
        for path in KINDS.values():
            theirs_I, ours_I = (
                of_site(index, path, kind).variance_I for kind in (AliasedMoments, InputMoments)
            )
            ratio_I = theirs_I / (ours_I * 16 * 128 / 15)  # they add up tokens, over N - 1 windows
            assert float(ratio_I.max()) < 1
            assert float(ratio_I.min()) < 0.97 * float(ratio_I.max())


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_of_features_equal_flaps_code(metric: Any) -> None:
    """With its fluctuation; its norm is the root of a mean over 16 windows."""
    for index, block in enumerate(Anatomy(one_head_per_group()).blocks):
        for kind, path in KINDS.items():
            moments = of_site(index, path)
            moments = moments._replace(norm_I=moments.norm_I / 4)
            score_I = feature_score(metric, block.reader(kind).site.module.weight, moments)
            close(score_I, golden("flap_stats")[f"model.layers.{index}.{path}.{metric}"])


def scores(metric: Any, **settings: Any) -> dict[str, torch.Tensor]:
    """The score of every unit by kind, (L, U)."""
    method = FLAP(ratio=0.5, metric=metric, **settings)
    evidence = found(type(method.evidence), 16)
    tables = [
        method.score(block, evidence[block.index]) for block in Anatomy(one_head_per_group()).blocks
    ]
    return {kind: torch.stack([table[kind] for table in tables]) for kind in KINDS}


AS_IN_THE_CODE = {"fluctuation": "reference", "square_attention": True}
NAMES = {"group": "heads", "neuron": "neurons"}


@pytest.mark.parametrize("metric", METRICS)
def test_standardised_scores_equal_flaps_code(metric: Any) -> None:
    """With its fluctuation and its square, of heads and of neurons."""
    for kind, score_LU in scores(metric, **AS_IN_THE_CODE).items():
        expected_LU = golden("flap_scores")[f"{metric}.{NAMES[kind]}_standardised"]
        torch.testing.assert_close(score_LU, expected_LU, rtol=1e-4, atol=1e-4)


def test_ours_differ_from_flaps_code_where_it_is_wrong() -> None:
    """Neurons by the variance; heads by the square as well."""
    for kind, score_LU in scores("WIFV").items():
        expected_LU = golden("flap_scores")[f"WIFV.{NAMES[kind]}_standardised"]
        assert float((score_LU - expected_LU).abs().max()) > 1e-3


@pytest.mark.parametrize("percent", [20, 50])
@pytest.mark.parametrize("metric", METRICS)
def test_all_units_in_one_line_keep_what_flaps_code_keeps(metric: Any, percent: int) -> None:
    """AL-AM: sorted, cut where the weight of what stays is nearest, and the cut itself goes too."""
    table = scores(metric, **AS_IN_THE_CODE)
    scores_U = torch.cat([table[kind].flatten() for kind in KINDS])
    weight_U = torch.tensor([10] * 40 + [1] * 860)
    order_U = scores_U.argsort(descending=True)
    wanted = (1 - percent / 100) * int(weight_U.sum())
    cut = int((weight_U[order_U].cumsum(0) - wanted).abs().argmin())
    kept_U = scores_U > scores_U[order_U[cut]]
    for kind, part_U in zip(KINDS, kept_U.split([40, 860]), strict=True):
        expected_LU = golden("flap_kept_mask")[f"{metric}.AL-AM.p{percent}.{NAMES[kind]}"].bool()
        assert torch.equal(part_U.view(5, -1), expected_LU), kind

    pools, sizes = [*table["group"], *table["neuron"]], [10] * 5 + [1] * 5
    goal = percent / 100 * int(weight_U.sum())
    removed = global_counts(pools, sizes, [8] * 5 + [172] * 5, goal)
    ours = sum(size * count for size, count in zip(sizes, removed, strict=True))
    theirs = int(weight_U[~kept_U].sum())
    assert abs(ours - goal) <= 0.5
    assert abs(theirs - goal) <= 10


@pytest.mark.parametrize(("structure", "percent"), [("UL-UM", 20), ("UL-UM", 50), ("UL-MM", 20)])
def test_each_block_alone_keeps_what_flaps_code_keeps(structure: str, percent: int) -> None:
    """UL: int(p · n) of each kind go from every block; UL-MM: one head, and neurons to match."""
    share = percent / 100
    heads, neurons = int(share * 8), int(share * 172)
    if structure == "UL-MM":
        heads = 5 // 5
        neurons = int((share * (3 * 172 * 64 + 4 * 64**2) - 4 * 64 * 8) / (3 * 64))
    for kind, score_LU in scores("WIFV", **AS_IN_THE_CODE).items():
        removed = heads if kind == "group" else neurons
        expected_LU = golden("flap_kept_mask")[f"WIFV.{structure}.p{percent}.{NAMES[kind]}"].bool()
        for score_U, expected_U in zip(score_LU, expected_LU, strict=True):
            assert torch.equal(score_U > score_U.sort().values[removed - 1], expected_U)


def test_five_heads_and_the_rest_neurons_is_what_flaps_code_keeps() -> None:
    """AL-MM: the five lowest heads of the model go, and the lowest neurons make up the budget."""
    table = scores("WIFV", **AS_IN_THE_CODE)
    expected = golden("flap_kept_mask")
    for kind, score_LU in table.items():
        kept_LU = expected[f"WIFV.AL-MM.p20.{NAMES[kind]}"].bool()
        removed = int((~kept_LU).sum())
        assert removed == 5 or kind == "neuron"
        assert torch.equal(score_LU > score_LU.flatten().sort().values[removed - 1], kept_LU)


@pytest.mark.parametrize(
    "name",
    [f"{metric}.AL-AM.p{percent}" for metric in METRICS for percent in (20, 50)]
    + ["WIFV.UL-UM.p20", "WIFV.UL-UM.p50", "WIFV.UL-MM.p20", "WIFV.AL-MM.p20"],
)
def test_the_bias_that_compensates_equals_flaps_code(name: str) -> None:
    """W · (mean of what was removed), with its kept units and the means of the dense model."""
    for index, block in enumerate(Anatomy(one_head_per_group()).blocks):
        for kind, path in KINDS.items():
            keep_U = golden("flap_kept_mask")[f"{name}.{NAMES[kind]}"][index].bool()
            member = block.reader(kind)
            keep_I = keep_U.repeat_interleave(member.size)
            weight_OI, mean_I = member.site.module.weight.detach(), of_site(index, path).mean_I
            fixed = Bias().fix(weight_OI, None, keep_I, mean_I)
            assert fixed.bias_O is not None
            expected_O = golden("flap_bias")[f"{name}.{path.split('.')[1]}_bias"][index]
            torch.testing.assert_close(fixed.bias_O, expected_O, rtol=1e-4, atol=1e-6)
