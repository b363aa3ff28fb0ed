"""Every pruning method of the package, and two from outside, with settings to try them by.

A new method needs an entry in `SETTINGS`, and then has the whole contract to keep.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import lightning_prune
from lightning_prune import (
    FLAP,
    OWL,
    Bias,
    BlockFit,
    Circuit,
    GQATaylor,
    Inverse,
    LeastSquares,
    Progressive,
    Wanda,
)
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.checks import Configured
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from tests.contract.outside import Louder, Quietest
from tests.copies import Template
from tests.tiny import tiny_batch, tiny_model

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "Magnitude": [{"sparsity": 0.29}, {"pattern": "2:4"}],
    "Wanda": [
        {"sparsity": 0.29},
        {"pattern": "2:4"},
        {"sparsity": 0.29, "propagate": "layer"},
        {"sparsity": 0.29, "adaptive": True, "propagate": "none"},
        {"sparsity": 0.29, "block_fit": BlockFit(steps=4)},
        {"pattern": "2:4", "block_fit": BlockFit(steps=4, target="logits")},
    ],
    "RIA": [
        {"sparsity": 0.29},
        {"pattern": "2:4", "power": 1.0},
        {"pattern": "2:4", "permute": "fold"},
    ],
    "SparseGPT": [{"sparsity": 0.29}, {"pattern": "2:4", "propagate": "layer"}],
    "ALPS": [{"sparsity": 0.29, "scope": "row"}, {"pattern": "2:4"}],
    "Ablation": [
        {"sparsity": 0.29, "mask": "magnitude", "mask_from": "updated"},
        {"pattern": "2:4"},
    ],
    "ResidualFit": [{"sparsity": 0.29}, {"pattern": "2:4"}],
    "StructuredOBS": [{"ratio": 0.4}, {"ratio": 0.3, "per_step": 3, "attention": False}],
    "MagnitudeSP": [{"ratio": 0.3, "norm": 1}, {"ratio": 0.6, "attention": False}],
    "WandaSP": [{"ratio": 0.3}, {"ratio": 0.6, "mlp": False}],
    "FLAP": [
        {"ratio": 0.3},
        {"ratio": 0.3, "metric": "WIFN", "square_attention": True, "attention_ratio": 0.25},
        {"ratio": 0.6, "metric": "IFV", "attention": False},
    ],
    "CFSP": [
        {"ratio": 0.3},
        {"ratio": 0.6, "metric": "wanda_base", "formula": "code"},
        {"ratio": 0.3, "block_fit": BlockFit(steps=4, span=2, target="block")},
    ],
    "DropBlocks": [  # whole blocks: tests/callbacks/blocks
        {"count": 1, "part": "attention", "measure": "removal"},
        {"count": 1, "part": "mlp", "measure": "mse"},
    ],
    "GQATaylor": [
        {"ratio": 0.25},
        {"ratio": 0.6, "attention": False},
        {"ratio": 0.6, "mlp": False},
    ],
    "Taylor": [{"ratio": 0.3, "mode": "param_mix"}, {"ratio": 0.3, "grouping": "max"}],
    "SNIP": [{"ratio": 0.3}],
    "ReFer": [{"ratio": 0.3, "kind": "nuclear"}],
    "AFR": [{"ratio": 0.3}],
    "Relevance": [{"ratio": 0.3}],
    "WeightSNIP": [{"sparsity": 0.29}, {"pattern": "2:4"}],
    "WeightReFer": [{"sparsity": 0.29, "kind": "l1", "scope": "row"}],
    "WeightAFR": [{"sparsity": 0.29}],
    "WeightRelevance": [
        {"sparsity": 0.29},
        {"pattern": "2:4", "places": "all", "average": "magnitudes"},
    ],
    "Louder": [{"sparsity": 0.29, "power": 0.5}, {"pattern": "2:4", "propagate": "layer"}],
    "Quietest": [{"ratio": 0.3}, {"ratio": 0.6, "attention": False}],
}


@dataclass(frozen=True)
class Case:
    """A method with settings."""

    cls: type[PruningCallback]
    settings: dict[str, Any]

    @property
    def nested(self) -> bool:
        """Whether an argument is an object, which a configuration names by its class path."""
        return any(isinstance(value, Configured) for value in self.settings.values())

    def make(self, **more: Any) -> PruningCallback:
        return self.cls(**(self.settings | more))

    def __str__(self) -> str:
        return repr(self.make())


def public_methods() -> list[type[PruningCallback]]:
    """All methods that the package makes public."""
    public = [getattr(lightning_prune, name) for name in lightning_prune.__all__]
    return [
        cls
        for cls in public
        if inspect.isclass(cls)
        and issubclass(cls, PruningCallback)
        # Progressive holds another method, Circuit names what goes: tests/callbacks
        and cls not in (Progressive, Circuit)
    ]


METHODS = [*public_methods(), Louder, Quietest]
CASES = [Case(cls, settings) for cls in METHODS for settings in SETTINGS[cls.__name__]]

NESTED: list[PruningCallback] = [
    GQATaylor(ratio=0.25, allocation=Inverse(alpha=2.0), repair=LeastSquares(trust=0.0)),
    FLAP(ratio=0.25, repair=None),
    Wanda(sparsity=0.5, allocation=OWL(M=3.0), include="*.mlp.*"),
    Wanda(pattern="2:4", block_fit=BlockFit(steps=8, target="block")),
    Progressive(method=FLAP(ratio=0.5, repair=Bias()), rounds=2, max_increase=1.5),
]
"""Methods that hold objects with arguments of their own."""


def even_model(model_type: str, **overrides: Any) -> nn.Module:
    """A tiny model whose widths are all divisible by 4, as 2:4 wants it."""
    width = "ffn_dim" if model_type == "opt" else "intermediate_size"
    return tiny_model(model_type, **({width: 24} | overrides))


def batches(size: int = 2, total: int = 4, tokens: int = 12) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": part} for part in tiny_batch(total, tokens).split(size)]


_PRUNED: dict[tuple[str, str], Template] = {}


def pruned(case: Case, model_type: str = "llama", **more: Any) -> tuple[nn.Module, Plan]:
    """A model that is even, pruned with `batches()`, and its plan: made once, and then copied."""
    method = case.make(**more)
    key = (repr(method), model_type)
    if key not in _PRUNED:
        model = even_model(model_type)
        _PRUNED[key] = Template((model, prune(model, method, batches())))
    model, plan = _PRUNED[key].copy()
    return model, plan


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all that the model holds."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same_state(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    """Bit for bit, NaN included."""
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, equal_nan=True)
