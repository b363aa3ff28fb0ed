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

import lazy_loader

from lightning_prune.modeling.registry import register_all

register_all()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
