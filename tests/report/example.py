"""A report to test with: uneven blocks, and masks where asked."""

from __future__ import annotations

from dataclasses import replace

from lightning_prune.evaluation import Answer, Evaluation, Speed, TaskScore, TextPerplexity
from lightning_prune.report.report import Asked, BlockShape, Report, StageMetrics


def example_report(blocks: int = 4, sparsity: float = 0.0, model: str = "tiny") -> Report:
    """A dense, a pruned and a recovered stage; block i keeps one group of two heads fewer."""
    shapes = [
        BlockShape(
            index=i,
            heads=8 - 2 * (i % 4),
            kv_heads=4 - i % 4,
            width=90 - i % 50,
            dense_heads=8,
            dense_kv_heads=4,
            dense_width=90,
            sparsity={"self_attn.q_proj": sparsity, "mlp.up_proj": sparsity / 2},
        )
        for i in range(blocks)
    ]
    stages = {
        "dense": StageMetrics(36.214, 912_345, 912_345, 3_649_380, 5120.0),
        "pruned": StageMetrics(88.02, 712_345, 712_345, 2_849_380, 6300.0),
        "recovered": StageMetrics(None, 712_345, 712_345, 2_849_380, None),
    }
    return Report(
        model=model,
        method="GQATaylor(ratio=0.25)",
        created="2020-01-01T00:00:00",
        stages=stages,
        blocks=shapes,
        settings={
            "length": 128,
            "validation_windows": 64,
            "device": "cpu",
            "dtype": "float32",
            "ratio": 0.25,
        },
        versions={"torch": "2.0"},
        files={"plan": "runs/example/plan"},
    )


def full_report(blocks: int = 4, model: str = "tiny", prompt: str = "Why?") -> Report:
    """With everything that a report can have."""
    report = example_report(blocks, sparsity=0.5, model=model)
    return replace(
        report,
        asked=[Asked("Wanda", "sparsity 0.5", "50.00% of 64 weights are zero")],
        importance={"Importance of blocks for FLAP": {i: 0.5 - i for i in range(blocks)}},
        curves={
            "train_loss": [(i, 5 / (i + 1)) for i in range(40)],
            "val_perplexity": [(20, 41.0), (40, 40.0)],
        },
        evaluations={
            stage: Evaluation(
                [TextPerplexity("wikitext2", "test", 2048, 166, 6.13)],
                [TaskScore(name, "acc", 0.5, 0.01, 100, 0) for name in ("boolq", "rte")],
                [Answer(prompt, f"{stage}: because", 0.75)],
                [Speed(1, 128, 0.02, 0.01, 2**30)],
            )
            for stage in report.stages
        },
        seconds={"measuring dense": 2.0, "pruning": 75.0, "training": 4000.0},
        configuration={"model": {"path": model}},
        provenance={"plan (sha256)": "abc", "calibration": {"seed": 0}},
    )
