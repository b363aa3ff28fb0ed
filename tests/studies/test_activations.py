"""Thresholds of activations: what hooks hear, what is left out, and the file of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_prune import CausalLM, TextData
from lightning_prune.analysis.activations import Scope, Thresholds
from lightning_prune.anatomy import Anatomy
from lightning_prune.studies.activations import measure_activations


def heard(module: CausalLM, data: TextData) -> dict[str, torch.Tensor]:
    """All inputs of every Linear, by its name, in magnitude."""
    inputs: dict[str, list[torch.Tensor]] = {}
    handles = []
    for block in Anatomy(module.base).blocks:
        for site in block.sites:
            hook = inputs.setdefault(site.name, [])
            handles.append(
                site.module.register_forward_pre_hook(
                    lambda _, given, hook=hook: hook.append(given[0].abs().flatten())
                )
            )
    with torch.no_grad():
        for batch in data.calibration_dataloader():
            module.base(**{name: batch[name] for name in ("input_ids",)}, use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in inputs.items()}


@pytest.mark.parametrize("scope", ["site", "projection", "model"])
def test_thresholds_leave_out_what_was_asked(
    scope: Scope, module: CausalLM, data: TextData, tmp_path: Path
) -> None:
    """Counted in what every Linear reads, and weighed by its output features."""
    found = measure_activations(module, data, 0.7, scope)
    inputs = heard(module, data)
    sites = [site for block in Anatomy(module.base).blocks for site in block.sites]
    assert list(found.thresholds) == [site.name for site in sites] == list(found.reached)
    groups: dict[str, list[tuple[float, float]]] = {}
    for site in sites:
        size_N = inputs[site.name]
        share = float((size_N <= found.thresholds[site.name]).double().mean())
        assert found.reached[site.name] == pytest.approx(share, abs=2e-3)
        key = {"site": site.name, "projection": site.table.reads, "model": ""}[scope]
        weight = size_N.numel() * site.module.out_features
        groups.setdefault(key, []).append((share * weight, weight))
    for parts in groups.values():
        left_out, every = (sum(column) for column in zip(*parts, strict=True))
        assert left_out / every == pytest.approx(0.7, abs=5e-3)
    if scope == "model":
        assert len(set(found.thresholds.values())) == 1
    found.write(tmp_path / "thresholds.json")
    assert Thresholds.read(tmp_path / "thresholds.json") == found


def test_the_file_is_what_a_kernel_reads(module: CausalLM, data: TextData, tmp_path: Path) -> None:
    """Target, model, tokens, and a number for every Linear by its name in the model."""
    measure_activations(module, data, 0.5).write(tmp_path / "thresholds.json")
    written = json.loads((tmp_path / "thresholds.json").read_text())
    batches = list(data.calibration_dataloader())
    assert written["sparsity"] == 0.5
    assert written["model"] == str(module.path)
    assert written["tokens"] == sum(batch["input_ids"].numel() for batch in batches)
    for name, threshold in written["thresholds"].items():
        assert isinstance(module.base.get_submodule(name), torch.nn.Linear)
        assert threshold > 0


def test_more_sparsity_has_higher_thresholds(module: CausalLM, data: TextData) -> None:
    """At every Linear."""
    low, high = (measure_activations(module, data, p).thresholds for p in (0.3, 0.6))
    assert all(high[name] > low[name] for name in low)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0 is not allowed; it is above 0 and below 1"),
        ({"scope": "block"}, "scope='block' is not allowed"),
    ],
)
def test_what_makes_no_sense_is_refused(
    settings: dict[str, object], message: str, module: CausalLM, data: TextData
) -> None:
    """Before the model runs."""
    with pytest.raises(ValueError, match=message):
        measure_activations(module, data, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON", '{"thresholds": {"a": "high"}}'])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    """In one sentence."""
    (tmp_path / "thresholds.json").write_text(text)
    with pytest.raises(ValueError, match="holds no thresholds"):
        Thresholds.read(tmp_path / "thresholds.json")
