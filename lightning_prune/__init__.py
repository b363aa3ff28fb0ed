"""Prune language models inside PyTorch Lightning, recover them, and load them anywhere.

```python
from lightning.pytorch import Trainer
from lightning_prune import CausalLM, GQATaylor, LoRA, TextData

trainer = Trainer(max_steps=200, callbacks=[GQATaylor(ratio=0.25)])
trainer.fit(CausalLM("meta-llama/Llama-3.2-1B", adapter=LoRA(r=16)), TextData("wikitext2"))
```

Importing the package makes transformers able to load pruned models with uneven widths. Everything
else is imported when it is first asked for; the names are in `__init__.pyi`.
"""

from typing import Any

import lazy_loader

from lightning_prune.checks import meant
from lightning_prune.modeling.registry import register_all

register_all()

_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name; of one that is none, the nearest is said."""
    if name not in __all__:
        raise AttributeError(f"{__name__} has no {name!r}.{meant(name, __all__)}")
    return _imported(name)
