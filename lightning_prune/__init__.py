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

from lightning_prune.export import load, save
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.version import __version__ as __version__

if TYPE_CHECKING:
    from lightning_prune.allocation import OWL, PerBlock, Sensitivity
    from lightning_prune.callbacks import (
        ALPS,
        CFSP,
        FLAP,
        RIA,
        Ablation,
        GQATaylor,
        Magnitude,
        MagnitudeSP,
        ResidualFit,
        SavePretrained,
        SparseGPT,
        Wanda,
        WandaSP,
        WriteReport,
    )
    from lightning_prune.data import TextData
    from lightning_prune.models import CausalLM, LoRA

__all__ = [
    "ALPS",
    "CFSP",
    "FLAP",
    "OWL",
    "RIA",
    "Ablation",
    "CausalLM",
    "GQATaylor",
    "LoRA",
    "Magnitude",
    "MagnitudeSP",
    "PerBlock",
    "Plan",
    "ResidualFit",
    "SavePretrained",
    "Sensitivity",
    "SparseGPT",
    "TextData",
    "Wanda",
    "WandaSP",
    "WriteReport",
    "load",
    "prune",
    "save",
]

_ROOMS = {
    "ALPS": "callbacks",
    "CFSP": "callbacks",
    "FLAP": "callbacks",
    "OWL": "allocation",
    "RIA": "callbacks",
    "Ablation": "callbacks",
    "CausalLM": "models",
    "GQATaylor": "callbacks",
    "LoRA": "models",
    "Magnitude": "callbacks",
    "MagnitudeSP": "callbacks",
    "PerBlock": "allocation",
    "ResidualFit": "callbacks",
    "SavePretrained": "callbacks",
    "Sensitivity": "allocation",
    "SparseGPT": "callbacks",
    "TextData": "data",
    "Wanda": "callbacks",
    "WandaSP": "callbacks",
    "WriteReport": "callbacks",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
