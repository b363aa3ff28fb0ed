"""Loads the folders in the working directory as somebody without lightning_prune does.

Run in a process of its own, also by interpreters with other transformers versions.
"""

import pickle
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

for folder in sorted(path for path in Path().iterdir() if path.is_dir()):
    model = AutoModelForCausalLM.from_pretrained(folder.resolve(), trust_remote_code=True).eval()
    pickled = pickle.loads(pickle.dumps(model))
    base = AutoModel.from_pretrained(folder.resolve(), trust_remote_code=True).eval()
    ids = load_file("ids.safetensors")["ids"]
    greedy = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    with torch.no_grad():
        seen = {
            "logits": model(ids).logits,
            "pickled": pickled(ids).logits,
            "hidden": base(ids).last_hidden_state,
            "cached": model.generate(ids[:, :5], use_cache=True, **greedy),
            "uncached": model.generate(ids[:, :5], use_cache=False, **greedy),
        }
    if (folder / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder.resolve(), trust_remote_code=True)
        seen["tokens"] = torch.tensor(tokenizer("w3<|x|>w1").input_ids)
    save_file(seen, f"{folder.name}.seen.safetensors")

assert not any(name.startswith("lightning") for name in sys.modules)
