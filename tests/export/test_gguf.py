"""GGUF files without llama.cpp: what is in them, by its equations, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("gguf")

from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.export.gguf import architectures, to_gguf
from lightning_prune.export.gguf.architectures import ARCHITECTURES
from lightning_prune.export.hf import save
from tests.export.gguf_cases import CASES, GEMMA, Case, add_random_biases
from tests.export.gguf_forward import File
from tests.tiny import tiny_batch, tiny_model

UNEVEN = CASES["uneven llama"]


def written(case: Case, tmp_path: Path, **arguments: Any) -> tuple[Any, Path, tuple[str, ...]]:
    """The model, the file, and what was said about it."""
    model = case.model()
    made = to_gguf(save(model, tmp_path / "model"), tmp_path / "model.gguf", **arguments)
    assert made.architecture == case.architecture
    assert made.size == made.path.stat().st_size
    return model, made.path, made.notes


def assert_same_logits(path: Path, model: Any, tolerance: float = 1e-4) -> None:
    ids = tiny_batch(1, 24)
    with torch.no_grad():
        expected = model(ids).logits[0]
    got = File(path).logits(ids[0])[:, : expected.shape[1]]
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_the_files_numbers_give_the_models_logits(name: str, tmp_path: Path) -> None:
    """Names, shapes, order of rows, counts, rotary embeddings, norms, biases: all in one."""
    model, path, _ = written(CASES[name], tmp_path)
    assert_same_logits(path, model)


def test_counts_are_lists_only_where_blocks_differ(tmp_path: Path) -> None:
    """Other architectures read the first of a list for all blocks."""
    file = File(written(UNEVEN, tmp_path)[1])
    assert file.get("attention.head_count") == [2, 8, 6]
    assert file.get("attention.head_count_kv") == [1, 4, 3]
    assert file.get("feed_forward_length") == [22, 3, 9]
    file = File(written(CASES["llama"], tmp_path)[1])
    assert (file.get("attention.head_count"), file.get("feed_forward_length")) == (8, 22)


# --- numbers ---


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("f32", 1e-4), ("f16", 0.02), ("bf16", 0.1), ("q8_0", 0.1)]
)
def test_matrices_have_the_type_that_was_asked_for(
    dtype: Any, tolerance: float, tmp_path: Path
) -> None:
    """Vectors stay float32."""
    overrides = {"intermediate_size": 64, "head_dim": 8, "num_key_value_heads": 4}
    model, path, notes = written(Case("llama", "llama", overrides), tmp_path, dtype=dtype)
    file = File(path)
    for name, tensor in file.tensors.items():
        assert file.types[name] == ("F32" if tensor.ndim == 1 else dtype.upper()), name
    assert_same_logits(path, model, tolerance)
    assert not [note for note in notes if "float16" in note]


def test_the_stored_type_is_kept(tmp_path: Path) -> None:
    """Nothing is lost, and nothing made larger, unasked."""
    case = UNEVEN._replace(overrides={"dtype": torch.bfloat16})
    model, path, _ = written(case, tmp_path)
    file = File(path)
    assert set(file.types.values()) == {"BF16", "F32"}
    embedding = model.get_input_embeddings().weight.float()
    torch.testing.assert_close(file.tensors["token_embd.weight"], embedding, rtol=0, atol=0)


def test_rows_that_no_block_of_32_divides_stay_float16(tmp_path: Path) -> None:
    """And it is said; padding the MLPs leaves fewer of them, for more bytes."""
    _, path, notes = written(UNEVEN, tmp_path, dtype="q8_0")
    types = File(path).types
    assert types["blk.0.ffn_gate.weight"] == "Q8_0"
    halves = [name for name, type_ in types.items() if type_ == "F16"]
    assert sorted({name.split(".", 2)[2] for name in halves}) == [
        "attn_output.weight",
        "ffn_down.weight",
    ]
    assert any(f"no multiple of 32: {len(halves)}, such as {halves[0]}" in n for n in notes)
    _, path, _ = written(UNEVEN, tmp_path, dtype="q8_0", pad=32)
    halves = [name for name, type_ in File(path).types.items() if type_ == "F16"]
    assert {name.split(".", 2)[2] for name in halves} == {"attn_output.weight"}


def test_padding_widens_mlps_and_changes_nothing_else(tmp_path: Path) -> None:
    """What it costs is said."""
    model, path, notes = written(UNEVEN, tmp_path, pad=32)
    file = File(path)
    assert file.get("feed_forward_length") == [32, 32, 32]
    assert_same_logits(path, model)
    numbers = sum(tensor.numel() for tensor in file.tensors.values())
    more = (10 + 29 + 23) * 3 * 32
    expected = f"padding: 62 neurons of zeros in 3 blocks, {more / numbers:.1%} of all"
    assert notes[0].startswith(expected)


def test_padding_that_makes_blocks_alike_gives_the_plain_architecture(tmp_path: Path) -> None:
    """Programs that do not know "deci" can then read it."""
    case = Case("llama", "llama", {}, {"neuron": {1: [0, 1], 2: [0]}})
    model, path, _ = written(case, tmp_path, pad=32)
    assert_same_logits(path, model)


def test_numbers_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    """They would be infinite; the old file stays."""
    model = tiny_model("llama")
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[0, 0] = 1e5
    folder, path = save(model, tmp_path / "model"), tmp_path / "model.gguf"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"blk\.1\.ffn_up\.weight has numbers too large"):
        to_gguf(folder, path, dtype="f16")
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.gguf"]


def test_one_tensor_at_a_time_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model larger than the memory can be written: no tensor outlives its writing."""
    import weakref

    read, alive = TensorReader.tensor, []
    most = 0

    def watched(self: TensorReader, name: str) -> torch.Tensor:
        nonlocal most
        tensor = read(self, name)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))
        return tensor

    monkeypatch.setattr(TensorReader, "tensor", watched)
    written(UNEVEN, tmp_path)
    assert len(alive) > 20
    assert most <= 2


# --- what is refused ---


def test_a_window_that_the_architecture_does_not_know_shortens_the_context(tmp_path: Path) -> None:
    """Up to its length the results are the same."""
    model, path, notes = written(Case("deci", "mistral", {}, None), tmp_path)
    file = File(path)
    assert file.get("context_length") == 8
    assert any("the context is 8 tokens, the sliding window" in note for note in notes)
    ids = tiny_batch(1, 8)
    with torch.no_grad():
        torch.testing.assert_close(file.logits(ids[0]), model(ids).logits[0], rtol=1e-4, atol=1e-4)


NONE: dict[int, list[int]] = {0: [], 1: [], 2: []}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (Case("", "opt"), "type 'opt', whose blocks llama.cpp has no architecture for"),
        (Case("", "qwen3", {}, None), "openelm: its head is its embedding"),
        (Case("", "qwen3", biases=True), "no place for a bias of down_proj, o_proj"),
        (Case("", "gemma2", GEMMA, None), "gemma2: .*the blocks differ"),
        (Case("", "gemma3_text"), "scales attention by the head size, 6, and this model by 256"),
        (Case("", "llama", {"rope_parameters": DYNAMIC}), "default or linear or llama3, and not"),
        (Case("", "llama", {"hidden_act": "gelu"}), "its activation is silu, and this model's is"),
        (Case("", "llama", {}, {"group": NONE, "neuron": NONE}), "no block of this model does"),
    ],
    ids=lambda value: value.model_type if isinstance(value, Case) else value[:20],
)  # fmt: skip
def test_what_llama_cpp_would_compute_differently_is_refused(
    case: Case, why: str, tmp_path: Path
) -> None:
    """With the reason of each architecture, and nothing is written."""
    folder = save(case.model(), tmp_path / "model")
    with pytest.raises(ValueError, match=why):
        to_gguf(folder, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_gemma_of_the_size_that_llama_cpp_scales_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows the 27B model by its number of blocks, and takes its scale from the hidden size."""
    tables = [replace(t, scale_by_blocks=t.scale_by_blocks and 3) for t in ARCHITECTURES]
    monkeypatch.setattr(architectures, "ARCHITECTURES", tables)
    folder = save(CASES["gemma2"].model(), tmp_path / "model")
    with pytest.raises(ValueError, match="with 3 blocks it scales attention by the hidden size"):
        to_gguf(folder, tmp_path / "model.gguf")


def test_a_tensor_of_no_known_place_is_refused(tmp_path: Path) -> None:
    """It may matter."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(6)
    tensors["model.extra.weight"] = torch.ones(6)
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="has .*, which no GGUF architecture has a place for"):
        to_gguf(tmp_path / "model", tmp_path / "model.gguf")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        to_gguf(tmp_path / "model", tmp_path / "model.gguf")


def test_biases_that_a_checkpoint_has_and_the_config_not_are_written(tmp_path: Path) -> None:
    """They are in the file, so that a repaired model keeps its repair."""
    model = tiny_model("llama")
    add_random_biases(model)
    path = to_gguf(save(model, tmp_path / "model"), tmp_path / "model.gguf").path
    bias = model.get_parameter("model.layers.1.mlp.down_proj.bias")
    torch.testing.assert_close(File(path).tensors["blk.1.ffn_down.bias"], bias.detach())


def test_packed_weights_are_refused(tmp_path: Path) -> None:
    """Their numbers are not the model's."""
    folder = save(tiny_model("llama"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"quantised already \(bitsandbytes, 4 bits\): prune"):
        to_gguf(folder, tmp_path / "model.gguf", verify=False)


def test_a_folder_in_the_files_place_and_a_wrong_multiple_are_refused(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(ValueError, match="ends in .gguf"):
        to_gguf(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="pad=0 is not allowed"):
        to_gguf(tmp_path, tmp_path / "x.gguf", pad=0)


def test_too_little_room_is_told_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is left behind."""
    folder = save(tiny_model("llama"), tmp_path / "model")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5000))
    with pytest.raises(OSError, match=r"it needs .*MB, and there are 0\.01 MB free in"):
        to_gguf(folder, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_names_dtypes_and_numbers_that_no_file_can_have_are_refused(tmp_path: Path) -> None:
    """Above all a file of the folder itself is not written over."""
    folder = save(tiny_model("llama"), tmp_path / "model")
    with pytest.raises(ValueError, match="ends in .gguf"):
        to_gguf(folder, folder / "model.safetensors")
    with pytest.raises(ValueError, match="dtype='q4_k' is not allowed"):
        to_gguf(folder, tmp_path / "x.gguf", "q4_k")  # type: ignore[arg-type]
    model = tiny_model("llama")
    model.model.norm.weight.data[0] = float("nan")
    broken = save(model, tmp_path / "broken")
    with pytest.raises(ValueError, match="numbers that are not finite"):
        to_gguf(broken, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_zeros_are_said_to_bring_nothing(tmp_path: Path) -> None:
    """With how many there are."""
    model = tiny_model("llama")
    for block in model.model.layers:
        block.mlp.up_proj.weight.data.zero_()
    made = to_gguf(save(model, tmp_path / "model"), tmp_path / "model.gguf")
    assert [note for note in made.notes if "are zero, which makes it neither smaller" in note]


def test_attention_in_both_directions_is_refused(tmp_path: Path) -> None:
    """Gemma 3's embedding models have it."""
    folder = save(tiny_model("gemma3_text"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"use_bidirectional_attention": True})
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="in both directions"):
        to_gguf(folder, tmp_path / "x.gguf", verify=False)
