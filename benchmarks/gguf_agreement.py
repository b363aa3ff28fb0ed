"""How large a model's GGUF files are, and how far llama.cpp agrees with transformers.

    python benchmarks/gguf_agreement.py FOLDER TEXT --python PYTHON

FOLDER is a saved model, TEXT a file, and PYTHON an interpreter that has llama-cpp-python. The
likeliest next token is compared over 200 tokens of the text, and 64 tokens of greedy text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TOKENS, PROMPT, NEW = 200, 8, 64


def main() -> None:
    """Write the files, have them run, and print a table."""
    import numpy as np
    import torch
    from rich.console import Console
    from rich.table import Table
    from transformers import AutoTokenizer

    from lightning_prune import load
    from lightning_prune.commands.arguments import model_folder
    from lightning_prune.export.gguf import to_gguf

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("text", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    folder = Path(model_folder(options.folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = options.text.read_text(encoding="utf-8")
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :TOKENS]
    model = load(folder, dtype="float32")
    with torch.inference_mode():
        best = model(ids).logits[0].argmax(1).numpy()
        settings = {"min_new_tokens": NEW, "max_new_tokens": NEW, "do_sample": False}
        greedy = model.generate(ids[:, :PROMPT], **settings)[0, PROMPT:].tolist()  # type: ignore[operator]

    table = Table("file", "architecture", "bytes", "same likeliest token", "same greedy tokens")
    with tempfile.TemporaryDirectory() as name:
        for dtype, pad in (("f32", 1), ("f16", 1), ("bf16", 1), ("q8_0", 1), ("q8_0", 32)):
            made = to_gguf(folder, Path(name) / "model.gguf", dtype, pad)  # type: ignore[arg-type]
            arguments = [
                options.python,
                __file__,
                "--runtime",
                str(made.path),
                json.dumps(ids[0].tolist()),
            ]
            finished = subprocess.run(arguments, capture_output=True, text=True)
            if finished.returncode:
                raise SystemExit(f"{options.python} cannot run the file:\n{finished.stderr}")
            likeliest, written = json.loads(finished.stdout.splitlines()[-1])
            same = next(
                (i for i, (a, b) in enumerate(zip(written, greedy, strict=True)) if a != b), NEW
            )
            table.add_row(
                f"{dtype}, pad {pad}",
                made.architecture,
                f"{made.size:,}",
                f"{np.mean(best == np.array(likeliest)):.1%}",
                f"{same} of {NEW}",
            )
    Console(width=110).print(table)


def runtime(path: str, ids: list[int]) -> None:
    """What llama.cpp makes of a file: the likeliest token after each, and greedy text."""
    import numpy as np
    from llama_cpp import Llama

    llm = Llama(path, n_ctx=TOKENS + NEW, logits_all=True, verbose=False, n_threads=1)
    llm.eval(ids)
    likeliest = np.argmax(llm.scores[: len(ids)], axis=1).tolist()
    llm.reset()
    written, fed = [], ids[:PROMPT]
    for _ in range(NEW):
        llm.eval(fed)
        fed = [int(np.argmax(llm.scores[llm.n_tokens - 1]))]
        written += fed
    print(json.dumps([likeliest, written]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--runtime"]:
        runtime(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
