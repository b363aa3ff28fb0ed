"""Imports lightning_prune and nothing else of it, then loads what lies in the working directory.

Run in a process of its own: writes `loaded.json`, the modules that were there after each import,
and `seen.safetensors`, the logits of a folder's model and of a pickled one.
"""

import json
import pickle
import sys
from importlib import import_module
from pathlib import Path

modules = {}
for name in ("lightning_prune", "lightning_prune.surgery"):
    import_module(name)
    modules[name] = sorted(sys.modules)
Path("loaded.json").write_text(json.dumps(modules), encoding="utf-8")

config = pickle.loads(Path("config.pickle").read_bytes())
assert config.model_type == "pruned_opt"

torch, safetensors = import_module("torch"), import_module("safetensors.torch")
ids = safetensors.load_file("ids.safetensors")["ids"]
auto = import_module("transformers").AutoModelForCausalLM
folder = auto.from_pretrained("folder").eval()
pickled = torch.load("model.pt", weights_only=False)
with torch.no_grad():
    logits = {"folder": folder(ids).logits, "pickled": pickled(ids).logits}
safetensors.save_file(logits, "seen.safetensors")
