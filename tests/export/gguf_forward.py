"""A slow reading of a GGUF file: its numbers through the equations of llama.cpp's graphs.

Axes: T tokens, H heads, D features of a head, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import nn

NEIGHBOURS = ("llama", "deci")  # whose rotary embedding turns features that are neighbours


class File:
    """Metadata without the architecture's prefix, and tensors in float32."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.architecture = self.fields["general.architecture"]
        self.types = {t.name: t.tensor_type.name for t in reader.tensors}
        self.tensors = {
            t.name: torch.tensor(dequantize(t.data, t.tensor_type)).float() for t in reader.tensors
        }

    def get(self, key: str, default: Any = None) -> Any:
        return self.fields.get(f"{self.architecture}.{key}", default)

    def at(self, key: str, block: int) -> Any:
        value = self.get(key)
        return value[block] if isinstance(value, list) else value

    def logits(self, ids_T: torch.Tensor) -> torch.Tensor:
        """The logits (T, V) after each token."""
        self.read: set[str] = {"output.weight"}
        gemma = self.architecture.startswith("gemma")
        embedding = self._tensor("token_embd.weight")
        hidden = embedding[ids_T] * (embedding.shape[1] ** 0.5 if gemma else 1)
        for block in range(self.get("block_count")):
            for part in (self._attention, self._mlp):
                hidden = hidden + part(hidden, block)
        hidden = self._norm(hidden, "output_norm")
        logits = hidden @ self.tensors.get("output.weight", embedding).T
        if cap := self.get("final_logit_softcapping"):
            logits = torch.tanh(logits / cap) * cap
        assert set(self.tensors) <= self.read, "llama.cpp refuses tensors that it does not read"
        return logits

    def _tensor(self, name: str) -> torch.Tensor:
        self.read.add(name)
        return self.tensors[name]

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self._tensor(f"{name}.weight")
        return nn.functional.rms_norm(
            x, (x.shape[-1],), weight, self.get("attention.layer_norm_rms_epsilon")
        )

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        out = x @ self._tensor(f"{name}.weight").T
        bias = f"{name}.bias"
        return out + self._tensor(bias) if bias in self.tensors else out

    def _attention(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        at = f"blk.{block}"
        heads, kv = (self.at(f"attention.head_count{k}", block) for k in ("", "_kv"))
        if not heads:
            assert self.architecture == "deci"
            assert block > 0, "deci reads the head size from the first block"
            assert f"{at}.attn_output.bias" not in self.tensors, "deci does not add it"
            return torch.zeros_like(hidden)
        x, dim = self._norm(hidden, f"{at}.attn_norm"), self.get("attention.key_length")
        assert self.get("attention.value_length") == self.get("rope.dimension_count") == dim
        if f"{at}.attn_qkv.weight" in self.tensors:
            whole = self._linear(x, f"{at}.attn_qkv").unflatten(1, (-1, dim))
            q, k, v = whole.split([heads, kv, kv], dim=1)
        else:
            names = (f"{at}.attn_{part}" for part in "qkv")
            q, k, v = (self._linear(x, name).unflatten(1, (-1, dim)) for name in names)
        assert (q.shape[1], k.shape[1], v.shape[1]) == (heads, kv, kv)
        if f"{at}.attn_q_norm.weight" in self.tensors:
            q, k = self._norm(q, f"{at}.attn_q_norm"), self._norm(k, f"{at}.attn_k_norm")
        slides = bool(self.get("attention.sliding_window_pattern") and self._slides(block))
        q, k = self._rotated(q, slides), self._rotated(k, slides)
        k, v = (t.repeat_interleave(heads // kv, dim=1) for t in (k, v))
        scores = torch.einsum("thd,shd->hts", q, k) / dim**0.5
        if cap := self.get("attn_logit_softcapping"):
            scores = torch.tanh(scores / cap) * cap
        behind = torch.arange(len(x))[:, None] - torch.arange(len(x))
        hide = (behind < 0) | (slides & (behind >= self.get("attention.sliding_window", 0)))
        weights = scores.masked_fill(hide, -torch.inf).softmax(-1)
        out = torch.einsum("hts,shd->thd", weights, v).flatten(1)
        out = self._linear(out, f"{at}.attn_output")
        post = f"{at}.post_attention_norm"
        return self._norm(out, post) if f"{post}.weight" in self.tensors else out

    def _slides(self, block: int) -> bool:
        return bool(self.get("attention.sliding_window_pattern")[block])

    def _rotated(self, x: torch.Tensor, slides: bool) -> torch.Tensor:
        dim = x.shape[-1]
        base = self.get("rope.freq_base_swa" if slides else "rope.freq_base")
        frequency = base ** -(torch.arange(0, dim, 2) / dim)
        if "rope_freqs.weight" in self.tensors:
            frequency = frequency / self._tensor("rope_freqs.weight")
        if self.get("rope.scaling.type") == "linear" and not slides:
            frequency = frequency / self.get("rope.scaling.factor")
        angle = torch.arange(len(x))[:, None, None] * frequency
        paired = self.architecture in NEIGHBOURS
        a, b = (x[..., ::2], x[..., 1::2]) if paired else x.chunk(2, dim=-1)
        turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
        return torch.stack(turned, -1).flatten(-2) if paired else torch.cat(turned, -1)

    def _mlp(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        at, width = f"blk.{block}", self.at("feed_forward_length", block)
        assert width > 0, "deci's graph forgets the attention of such a block"
        x = self._norm(hidden, f"{at}.ffn_norm")
        gate, up = self._linear(x, f"{at}.ffn_gate"), self._linear(x, f"{at}.ffn_up")
        assert gate.shape[1] == width
        gemma = self.architecture.startswith("gemma")
        act = nn.functional.gelu(gate, approximate="tanh") if gemma else nn.functional.silu(gate)
        out = self._linear(act * up, f"{at}.ffn_down")
        post = f"{at}.post_ffw_norm"
        return self._norm(out, post) if f"{post}.weight" in self.tensors else out
