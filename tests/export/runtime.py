"""Runs the GGUF files in the working directory with llama.cpp; knows nothing of lightning_prune.

Run by an interpreter that has llama-cpp-python, which may be another one than the tests'.
"""

import json
import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama

asked = json.loads(Path("asked.json").read_text(encoding="utf-8"))

for path in sorted(Path().glob("*.gguf")):
    ids = asked["ids"][path.stem]
    llm = Llama(str(path), n_ctx=512, n_batch=512, logits_all=True, verbose=False, n_threads=1)
    llm.eval(ids)
    np.save(f"{path.stem}.logits.npy", np.array(llm.scores[: len(ids)]))
    llm.reset()
    new, given = [], ids[: asked["prompt"]]
    for _ in range(asked["new"]):  # one token at a time, from the key/value cache
        llm.eval(given)
        given = [int(np.argmax(llm.scores[llm.n_tokens - 1]))]
        new += given
    np.save(f"{path.stem}.greedy.npy", np.array(new))
    texts = asked["texts"].get(path.stem, [])
    tokens = [llm.tokenize(text.encode(), add_bos=True, special=True) for text in texts]
    Path(f"{path.stem}.tokens.json").write_text(json.dumps(tokens), encoding="utf-8")

assert not any(name.startswith("lightning") for name in sys.modules)
