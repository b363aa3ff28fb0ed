"""Masks compared: the numbers of scikit-learn, scipy and the original, read a matrix at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.spatial import distance
from sklearn.metrics import jaccard_score

from lightning_prune.analysis.similarity import METRICS, SimilarityReport, compare_masks
from lightning_prune.plan import Plan
from tests.analysis.test_scores import random, unit_plan, weight_plan
from tests.shared import shared_path

UP = "model.layers.0.mlp.up_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
KINDS = {"random": None, "zeros": 0.0, "ones": 1.0, "sparse": None}


def mask(kind: str, seed: int, *shape: int) -> torch.Tensor:
    if KINDS[kind] is not None:
        return torch.full(shape, KINDS[kind] == 1)
    return random(*shape, seed=seed) < (0.5 if kind == "random" else 0.02)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - distance.cosine(*map(np.float64, (a, b))) if a.any() and b.any() else 0.0


def saved(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


def compared(
    tmp_path: Path, *models: Mapping[str, torch.Tensor], **settings: object
) -> SimilarityReport:
    paths = {f"m{i}": saved(tmp_path / f"{i}.safetensors", m) for i, m in enumerate(models)}
    return compare_masks(paths, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("kinds", [(a, b) for a in KINDS for b in KINDS], ids="-".join)
def test_metrics_are_those_of_scikit_learn_and_scipy(
    kinds: tuple[str, str], axis: str, tmp_path: Path
) -> None:
    """Of every feature, their mean and deviation, and of the whole; 0 / 0 is 0."""
    shape, seed = (7, 9), 7
    keep_a, keep_b = (mask(kind, seed + i, *shape) for i, kind in enumerate(kinds))
    value_a, value_b = (random(*shape, seed=i + 50) - 0.5 for i in range(2))
    weights = [{UP: value_a * keep_a}, {UP: value_b * keep_b}]
    report = compared(tmp_path, *weights, axis=axis, keep_features=True)
    (whole,) = report.select("all")
    found = report.features["m0", "m1", UP]

    def side(tensor_OI: torch.Tensor) -> np.ndarray:
        return tensor_OI.numpy() if axis == "rows" else tensor_OI.T.numpy()

    bits = [side(keep) for keep in (keep_a, keep_b)]
    values = [side(model[UP]) for model in weights]
    for f, (a, b) in enumerate(zip(*bits, strict=True)):
        expected = {
            "jaccard": jaccard_score(a, b, zero_division=0.0),
            "hamming": distance.hamming(a, b),
            "cosine": cosine(a, b),
            "value_cosine": cosine(*(value[f] for value in values)),
        }
        for name in METRICS:
            assert found[name][f] == pytest.approx(expected[name], abs=1e-6), (name, f)
    for name in METRICS:
        assert whole.means[name] == pytest.approx(found[name].mean(), abs=1e-9)
        assert whole.deviations[name] == pytest.approx(found[name].std(), abs=1e-6)
    a, b = (keep.numpy().ravel() for keep in (keep_a, keep_b))
    assert whole.jaccard == pytest.approx(jaccard_score(a, b, zero_division=0.0))
    assert whole.hamming == pytest.approx(distance.hamming(a, b))
    assert (whole.nonzero_a, whole.nonzero_b) == (a.sum(), b.sum())


def test_numbers_are_those_of_the_original_code(tmp_path: Path) -> None:
    """Rows of down_proj, columns of the others; its cosine is that of the weights."""
    golden = load_file(shared_path("golden/sparsity_metrics.safetensors"))
    dense = load_file(shared_path("models/stories260k/model.safetensors"))
    keep = load_file(shared_path("golden/wanda_50.safetensors"))
    sparse = load_file(shared_path("golden/sparsegpt_50.safetensors"))
    masked = {name: keep[name] * dense[name] for name in keep}
    report = compared(tmp_path, masked, sparse, keep_features=True)
    checked = 0
    for matrix in report.select("matrix"):
        for theirs, ours in (("jaccard",) * 2, ("hamming",) * 2, ("cosine", "value_cosine")):
            key = f"{matrix.place.removesuffix('.weight')}.{theirs}"
            if f"{key}.whole" not in golden:
                continue
            found = torch.from_numpy(report.features["m0", "m1", matrix.place][ours])
            torch.testing.assert_close(found, golden[f"{key}.per_feature"], atol=2e-6, rtol=0)
            spread = [matrix.means[ours], matrix.deviations[ours]]
            assert spread == pytest.approx(golden[f"{key}.mean_std"].tolist(), abs=2e-6)
            assert getattr(matrix, ours) == pytest.approx(golden[f"{key}.whole"].item(), abs=2e-6)
            checked += 1
    assert checked == 63


def test_places_add_up(tmp_path: Path) -> None:
    """Blocks, and projections, have the weights of their matrices, and so has the whole."""
    models = [
        {name: random(6, 4, seed=seed + i) * mask("random", seed, 6, 4) for i, name in names}
        for seed in (0, 10)
        for names in [list(enumerate((UP, DOWN, UP.replace("0", "1"))))]
    ]
    report = compared(tmp_path, *models)
    (whole,) = report.select("all")
    for level, places in (
        ("block", {"0": 24, "1": 48}),
        ("projection", {"mlp.up_proj": 48, "mlp.down_proj": 24}),
        ("matrix", {name: 24 for name in models[0]}),
    ):
        found = report.select(level)
        assert {s.place: s.weights for s in found} == places
        for count in ("weights", "nonzero_a", "nonzero_b", "both", "features"):
            assert sum(getattr(s, count) for s in found) == getattr(whole, count)
    assert whole.features == 4 + 6 + 4
    assert len(report.records()) == 1 + 2 + 2 + 3
    assert all(
        type(value) in (str, int, float) for row in report.records() for value in row.values()
    )


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_a_few_rows_at_a_time_give_the_same(
    axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large a matrix is."""
    models = [{UP: random(40, 9, seed=s) * mask("random", s, 40, 9)} for s in (1, 2, 3)]
    whole = compared(tmp_path, *models, axis=axis)
    monkeypatch.setattr("lightning_prune.analysis.masks.CHUNK", 30)
    again = compared(tmp_path, *models, axis=axis)
    for one, other in zip(whole.records(), again.records(), strict=True):
        for name, value in one.items():
            expected = other[name]
            assert value == (expected if isinstance(value, str) else pytest.approx(expected))
    assert whole.pairs == [("m0", "m1"), ("m0", "m2"), ("m1", "m2")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_masks_do_not_depend_on_the_type(dtype: torch.dtype, tmp_path: Path) -> None:
    """Numbers that are all but zero stay; negative zeros do not."""
    tiny = torch.finfo(dtype).smallest_normal
    weight = torch.tensor([[0.0, -0.0, tiny, -tiny], [1.0, 0.0, 0.0, 2.0]], dtype=dtype)
    (found,) = compared(tmp_path, {UP: weight}, {UP: torch.ones(2, 4)}).select("all")
    assert (found.nonzero_a, found.nonzero_b, found.both) == (4, 8, 4)


def test_a_plan_says_the_same_as_its_model(tmp_path: Path) -> None:
    """Without values there is no cosine of them; plan.json beside weights is the plan."""
    plan = weight_plan("Wanda", seed=0)
    plan.save(tmp_path / "plan")
    weights = {name: plan.mask(name).float() for name in plan.mask_names}
    model = tmp_path / "model"
    model.mkdir()
    saved(model / "model.safetensors", weights)
    plan.save(model)
    for path in (tmp_path / "plan", model / "plan.json"):
        (found,) = compare_masks({"a": path, "b": model}).select("all")
        assert (found.jaccard, found.hamming, found.value_cosine) == (1, 0, None)
        assert found.nonzero_a == sum(int(w.sum()) for w in weights.values())


def test_units_of_plans_are_compared(tmp_path: Path) -> None:
    """Each block has one row of units."""
    plans = [unit_plan("ReFer", seed=0), unit_plan("SNIP", seed=50)]
    for name, plan in zip("ab", plans, strict=True):
        plan.save(tmp_path / name)
    report = compare_masks({name: tmp_path / name for name in "ab"})
    for found in report.select("block"):
        kept = [set(plan.kept("neuron", int(found.place)).tolist()) for plan in plans]
        assert found.jaccard == len(kept[0] & kept[1]) / len(kept[0] | kept[1])
    assert report.select("projection")[0].place == "neuron"


def test_chance_is_what_random_masks_share(tmp_path: Path) -> None:
    """By matrix, as sparsity may differ between them."""
    density = {UP: 0.1, DOWN: 0.9}
    models = [
        {n: (random(300, 200, seed=s + len(n)) < p).float() for n, p in density.items()}
        for s in (0, 100)
    ]
    (found,) = compared(tmp_path, *models).select("all")
    assert found.jaccard_by_chance == pytest.approx(found.jaccard, abs=0.005)


def test_masks_without_zeros_or_without_weights_are_said(tmp_path: Path) -> None:
    """In one sentence each; the numbers stand."""
    dense, empty = {UP: torch.ones(4, 4)}, {UP: torch.zeros(4, 4)}
    report = compared(tmp_path, dense, empty)
    (found,) = report.select("all")
    assert (found.jaccard, found.cosine, found.hamming, found.value_cosine) == (0, 0, 1, 0)
    assert report.notes == [
        f"m0: no weight is zero in {UP}: nothing is masked there",
        f"m1: all weights are zero in {UP}; Jaccard and cosine are 0 there",
    ]


def test_what_only_one_has_is_left_out_and_said(tmp_path: Path) -> None:
    """Embeddings, norms and biases are no matrices of a block."""
    a = {UP: mask("random", 0, 4, 4).float(), DOWN: mask("random", 1, 4, 4).float()}
    b = {UP: mask("random", 2, 4, 4).float(), "model.embed_tokens.weight": torch.zeros(4, 4)}
    report = compared(tmp_path, a, b)
    assert [s.place for s in report.select("matrix")] == [UP]
    assert report.notes == ["m0: 1 of its matrices are not compared"]


@pytest.mark.parametrize(
    ("other", "settings", "message"),
    [
        ({UP: torch.ones(4, 3)}, {}, r"up_proj.weight is of shape \(4, 4\) in .* and \(4, 3\) in"),
        ({DOWN: torch.ones(4, 4)}, {}, "have no matrix in common: the one has model.layers.0"),
        ({"model.norm.weight": torch.ones(4)}, {}, "has no matrix in a block"),
        ({UP: torch.ones(4, 4)}, {"include": ["*.gate"]}, r"include='\*.gate' matches no matrix"),
        ({UP: torch.ones(4, 4)}, {"axis": "row"}, "axis='row' is not allowed"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    other: dict[str, torch.Tensor], settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    """With both sides of what does not fit."""
    with pytest.raises(ValueError, match=message):
        compared(tmp_path, {UP: torch.ones(4, 4)}, other, **settings)


def test_one_mask_alone_or_none_is_refused(tmp_path: Path) -> None:
    """Before anything is read."""
    path = saved(tmp_path / "a.safetensors", {UP: torch.ones(2, 2)})
    with pytest.raises(ValueError, match="compared by twos, and 1 are given"):
        compare_masks({"a": path})
    with pytest.raises(FileNotFoundError, match="no model or plan at '.*nowhere'"):
        compare_masks({"a": path, "b": tmp_path / "nowhere"})
    Plan().save(tmp_path / "empty")
    with pytest.raises(ValueError, match="has no matrix in a block"):
        compare_masks({"a": path, "b": tmp_path / "empty"})


def test_models_with_blocks_taken_out_are_refused(tmp_path: Path) -> None:
    """What has the same number is another block; of one file of several that is not known."""
    models = {
        "dense": {UP: torch.ones(4, 4), DOWN: torch.ones(4, 4)},
        "cut": {UP: torch.ones(4, 4)},
    }
    for name, model in models.items():
        (tmp_path / name).mkdir()
        saved(tmp_path / name / "model.safetensors", model)
    folders = {name: tmp_path / name for name in models}
    with pytest.raises(
        ValueError, match="dense has 2 block.s., cut has 1 block.s.: where blocks were"
    ):
        compare_masks(folders)
    files = {name: folder / "model.safetensors" for name, folder in folders.items()}
    assert "dense: 1 of its matrices are not compared" in compare_masks(files).notes
