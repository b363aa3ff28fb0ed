"""Whether vLLM can serve a saved model, and how.

What is checked here was read in vLLM's code (0.28 to 0.33); no server is started. A stock folder is
served by vLLM's own class of the family. A folder with its own model code is served by vLLM's
Transformers modelling backend, which takes the Linears as the model code makes them, and, from
vLLM 0.28 on, the counts of heads layer by layer from `per_layer_config`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from lightning_prune.anatomy import PRUNED_PREFIX, Anatomy, Block
from lightning_prune.checkpoints.config import raw_config, read_tokenizer
from lightning_prune.checkpoints.load import check_stored
from lightning_prune.checkpoints.names import CONFIG
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.plan import Plan

__all__ = ["VLLMCheck", "check_vllm"]

LARGEST_TP = 8
_AUTO = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")


@dataclass(frozen=True)
class VLLMCheck:
    """What vLLM can do with a folder.

    Attributes:
        native: vLLM's own class serves it; otherwise its Transformers backend does.
        problems: why it cannot be served with the `tp` that was asked for; empty: it can.
        cautions: what to know before one relies on it.
        fits: the tensor-parallel sizes up to 8 for which nothing stands in the way.
        command: what to run, if it can be served.
    """

    native: bool
    problems: tuple[str, ...]
    cautions: tuple[str, ...]
    fits: tuple[int, ...]
    command: str | None


def check_vllm(folder: str | Path, tp: int = 1, verify: bool = True) -> VLLMCheck:
    """Compare a saved model with what vLLM asks for.

    Args:
        folder: a Hugging Face folder with safetensors.
        tp: the number of GPUs that share each matrix (`--tensor-parallel-size`).
        verify: compare the folder with its checksums.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: tp is not positive, or the folder is damaged.
    """
    if tp < 1:
        raise ValueError(f"tp={tp} is not allowed: give a number of GPUs, 1 or more")
    folder = Path(folder)
    reader, config, own_head = check_stored(folder, verify)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    blocks = Anatomy(model).blocks
    remote = config.model_type.startswith(PRUNED_PREFIX)
    native = not remote and not _has_another_head_size(config, blocks)
    always = [*_empty(blocks), *_other_names(model, reader), *(_code(folder) if remote else ())]
    if own_head:
        always.append(
            f"{CONFIG} says that the head is tied to the embeddings, and another is stored, which "
            "vLLM would leave out; write a folder that says so (--to hf)"
        )
    problems = [*always, *_with_tp(config, blocks, tp, native)]
    sizes = range(1, LARGEST_TP + 1)
    fits = [n for n in sizes if not (always or [*_with_tp(config, blocks, n, native)])]
    command = None if problems else _command(folder, tp, native, remote)
    cautions = [*_cautions(config, blocks, native, remote)]
    if read_tokenizer(folder) is None:
        cautions.append("the folder has no tokenizer: give vLLM one (--tokenizer)")
    if (folder / "plan.json").is_file() and Plan.load(folder).mask_names:
        cautions.append("weights that are zero bring neither speed nor a smaller model in vLLM")
    return VLLMCheck(native, tuple(problems), tuple(cautions), tuple(fits), command)


def _has_another_head_size(config: Any, blocks: list[Block]) -> bool:
    """Whether vLLM's own class would get the head size wrong: some versions of Qwen2's."""
    heads, head_dim = blocks[0].heads, blocks[0].head_dim
    return config.model_type == "qwen2" and heads * head_dim != config.hidden_size


def _empty(blocks: list[Block]) -> Iterator[str]:
    """Parts that no number of GPUs helps against."""
    for what, empty in (
        ("attention", [b.index for b in blocks if not b.heads]),
        ("MLP", [b.index for b in blocks if not b.width]),
    ):
        if empty:
            yield (
                f"blocks {_some(empty)} have no {what}: vLLM makes {what} layers for every block, "
                "and fails at empty ones. GGUF (--to gguf) or transformers can run this model"
            )


def _other_names(model: Any, reader: TensorReader) -> Iterator[str]:
    """Tensors that the model asks for and the folder lacks, or has and the model does not take."""
    if missing := [name for name, _ in model.named_parameters() if name not in reader.info]:
        yield f"the weights lack {missing[0]}"
    known = model.state_dict()
    if over := [n for n in reader.info if n not in known and not n.endswith("rotary_emb.inv_freq")]:
        yield f"the weights have {over[0]}, which no module takes"


def _code(folder: Path) -> Iterator[str]:
    """What of the model code is not where the config says."""
    named = raw_config(folder).get("auto_map", {})
    if missing := [auto for auto in _AUTO if auto not in named]:
        yield (
            f"{folder / CONFIG} names no class for {', '.join(missing)} in auto_map; save the "
            "model again with lightning_prune.save"
        )
    for module in sorted({name.partition(".")[0] for name in named.values()}):
        if not (folder / f"{module}.py").is_file():
            yield f"{folder} lacks {module}.py, the model's code; save the model again"


def _with_tp(config: Any, blocks: list[Block], tp: int, native: bool) -> Iterator[str]:
    """What this number of GPUs does not divide."""
    if tp == 1:
        return
    for name, counts in (
        ("query heads", {b.heads for b in blocks}),
        ("MLP neurons", {b.width for b in blocks}),
    ):
        if bad := sorted(n for n in counts if n % tp):
            yield f"{tp} GPUs cannot share {_some(bad)} {name} evenly"
    # vLLM's own classes repeat a key/value head on several GPUs; per layer nothing checks that.
    repeats = (lambda n: tp % n == 0) if native else (lambda n: False)
    if bad := sorted({b.kv_heads for b in blocks if b.kv_heads % tp and not repeats(b.kv_heads)}):
        yield f"{tp} GPUs cannot share {_some(bad)} key/value heads evenly"
    if not native and config.model_type == f"{PRUNED_PREFIX}phi3":
        yield "Phi-3's model code takes its fused matrices apart by counts of the whole model"


def _cautions(config: Any, blocks: list[Block], native: bool, remote: bool) -> Iterator[str]:
    if remote:
        yield (
            "needs vLLM 0.28 or newer with transformers 5.14 or newer, and runs the model code in "
            "the folder (--trust-remote-code)"
        )
    elif not native:
        yield (
            "some versions of vLLM's own Qwen2 class take the head size to be hidden size / heads, "
            "which it is not here, so its Transformers backend is used"
        )
    if not native:
        yield "no such server was started in our tests: try it before you rely on it"
    head_dim = blocks[0].head_dim
    if head_dim % 8 or head_dim > 256:
        yield (
            f"vLLM's FlashAttention takes head sizes that are multiples of 8 up to 256, and this "
            f"is {head_dim}; another attention backend may be slower, or missing"
        )
    if config.dtype == torch.float32:
        yield "the weights are float32, which vLLM turns into bfloat16 unless you pass --dtype"


def _command(folder: Path, tp: int, native: bool, remote: bool) -> str:
    parts = ["vllm", "serve", shlex.quote(str(folder))]
    parts += [] if native else ["--model-impl", "transformers"]
    parts += ["--trust-remote-code"] if remote else []
    parts += ["--tensor-parallel-size", str(tp)] if tp > 1 else []
    return " ".join(parts)


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:6])) + (" …" if len(numbers) > 6 else "")
