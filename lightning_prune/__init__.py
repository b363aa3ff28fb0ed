"""Prune language models inside PyTorch Lightning, recover them, and load them anywhere.

```python
from lightning.pytorch import Trainer
from lightning_prune import CausalLM, GQATaylor, LoRA, TextData

trainer = Trainer(max_steps=200, callbacks=[GQATaylor(ratio=0.25)])
trainer.fit(CausalLM("meta-llama/Llama-3.2-1B", adapter=LoRA(r=16)), TextData("wikitext2"))
```

Importing the package makes transformers able to load pruned models with uneven widths. Everything
else is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_prune.modeling.registry import register_all
from lightning_prune.version import __version__ as __version__

if TYPE_CHECKING:
    from lightning_prune.allocation import (
        OWL,
        CFSPSigmoid,
        FromFile,
        GlobalStandardised,
        Inverse,
        PerBlock,
        Proportional,
        Sensitivity,
        Uniform,
    )
    from lightning_prune.callbacks import (
        AFR,
        ALPS,
        CFSP,
        FLAP,
        RIA,
        SNIP,
        Ablation,
        DropBlocks,
        Evaluate,
        GQATaylor,
        Magnitude,
        MagnitudeSP,
        Progressive,
        ReFer,
        ResidualFit,
        SavePretrained,
        SparseGPT,
        StructuredOBS,
        Taylor,
        Wanda,
        WandaSP,
        WeightAFR,
        WeightReFer,
        WeightSNIP,
        WriteReport,
    )
    from lightning_prune.checkpoints.load import load
    from lightning_prune.data import TextData
    from lightning_prune.export.hf import save
    from lightning_prune.models import CausalLM, Distillation, LoRA, QLoRA
    from lightning_prune.pipeline import prune, prune_in_rounds
    from lightning_prune.plan import Plan
    from lightning_prune.repair import Bias, LeastSquares, NoRepair

__all__ = [
    "AFR",
    "ALPS",
    "Ablation",
    "Bias",
    "CFSP",
    "CFSPSigmoid",
    "CausalLM",
    "Distillation",
    "DropBlocks",
    "Evaluate",
    "FLAP",
    "FromFile",
    "GQATaylor",
    "GlobalStandardised",
    "Inverse",
    "LeastSquares",
    "LoRA",
    "Magnitude",
    "MagnitudeSP",
    "NoRepair",
    "OWL",
    "PerBlock",
    "Plan",
    "Progressive",
    "Proportional",
    "QLoRA",
    "RIA",
    "ReFer",
    "ResidualFit",
    "SNIP",
    "SavePretrained",
    "Sensitivity",
    "SparseGPT",
    "StructuredOBS",
    "Taylor",
    "TextData",
    "Uniform",
    "Wanda",
    "WandaSP",
    "WeightAFR",
    "WeightReFer",
    "WeightSNIP",
    "WriteReport",
    "load",
    "prune",
    "prune_in_rounds",
    "save",
]

_ROOMS = {
    "AFR": "callbacks",
    "ALPS": "callbacks",
    "Ablation": "callbacks",
    "Bias": "repair",
    "CFSP": "callbacks",
    "CFSPSigmoid": "allocation",
    "CausalLM": "models",
    "Distillation": "models",
    "DropBlocks": "callbacks",
    "Evaluate": "callbacks",
    "FLAP": "callbacks",
    "FromFile": "allocation",
    "GQATaylor": "callbacks",
    "GlobalStandardised": "allocation",
    "Inverse": "allocation",
    "LeastSquares": "repair",
    "LoRA": "models",
    "Magnitude": "callbacks",
    "MagnitudeSP": "callbacks",
    "NoRepair": "repair",
    "OWL": "allocation",
    "PerBlock": "allocation",
    "Plan": "plan",
    "Progressive": "callbacks",
    "Proportional": "allocation",
    "QLoRA": "models",
    "RIA": "callbacks",
    "ReFer": "callbacks",
    "ResidualFit": "callbacks",
    "SNIP": "callbacks",
    "SavePretrained": "callbacks",
    "Sensitivity": "allocation",
    "SparseGPT": "callbacks",
    "StructuredOBS": "callbacks",
    "Taylor": "callbacks",
    "TextData": "data",
    "Uniform": "allocation",
    "Wanda": "callbacks",
    "WandaSP": "callbacks",
    "WeightAFR": "callbacks",
    "WeightReFer": "callbacks",
    "WeightSNIP": "callbacks",
    "WriteReport": "callbacks",
    "load": "checkpoints.load",
    "prune": "pipeline",
    "prune_in_rounds": "pipeline",
    "save": "export.hf",
}

register_all()


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
