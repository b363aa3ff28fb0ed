"""`lightning-prune export` and `generate`: what they write, say and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_prune import load, save
from lightning_prune.anatomy import Anatomy
from lightning_prune.cli import main
from lightning_prune.export import hub
from lightning_prune.models.loading import Source
from lightning_prune.plan import Plan
from lightning_prune.surgery import shrink
from tests.tiny import uneven_plan


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def uneven(model_folder: Path, tmp_path: Path) -> Path:
    """The session's model, cut unevenly, with its tokenizer and plan."""
    model = load(model_folder)
    plan = uneven_plan(model)
    shrink(Anatomy(model), plan)
    return save(model, tmp_path / "uneven", plan, Source(str(model_folder)).tokenizer())


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is sent to a hub that is not there."""
    said: list[Any] = []

    class Api:
        def create_repo(self, repo: str, private: bool, exist_ok: bool) -> str:
            said.append((repo, private))
            return f"https://hub/{repo}"

        def upload_folder(self, repo_id: str, folder_path: Path) -> None:
            said.append(sorted(path.name for path in folder_path.iterdir()))

        def upload_file(self, repo_id: str, path_or_fileobj: Path, path_in_repo: str) -> None:
            said.append(path_in_repo)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "get_token", lambda: "token")
    return said


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


# --- export ---


def test_a_folder_in_another_dtype_and_in_shards(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokenizer, plan and model code go along; checksums are those of the new files."""
    main(
        ["export", "uneven", "--to", "hf", "--out", "new", "--dtype", "bf16", "--shard_size", "9KB"]
    )
    assert capsys.readouterr().out.startswith("new  (0.1 MB of weights)")
    assert len([*Path("new").glob("model-*.safetensors")]) > 2
    assert Plan.load("new").kept("group", 0).tolist() == [3]
    assert AutoTokenizer.from_pretrained("new").is_fast
    model, old = load("new"), load(uneven)
    assert model.dtype == torch.bfloat16
    for (name, new), before in zip(
        model.state_dict().items(), old.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(new, before.bfloat16(), rtol=0, atol=0, msg=name)
    AutoModelForCausalLM.from_pretrained(Path("new").resolve(), trust_remote_code=True)


def test_a_gguf_file_lies_beside_the_folder_unless_told(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it is, and what it cost, is said."""
    pytest.importorskip("gguf")
    main(["export", "uneven", "--to", "gguf", "--pad", "32", "--dtype", "q8_0"])
    said = capsys.readouterr().out
    assert Path("uneven.gguf").is_file()
    assert "note: padding: 62 neurons of zeros in 3 blocks" in said
    assert ", deci, q8_0, " in said.splitlines()[-1]
    main(["export", "uneven", "--to", "gguf", "--out", "there/model.gguf"])
    assert Path("there/model.gguf").is_file()


def test_the_check_for_vllm_prints_the_command(
    uneven: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or says why there is none, with exit status 2."""
    main(["export", "uneven", "--to", "vllm-check"])
    said = capsys.readouterr().out
    assert "tensor-parallel sizes that fit: 1\n" in said
    assert said.splitlines()[-1] == (
        "vllm serve uneven --model-impl transformers --trust-remote-code"
    )
    said = refused("export", "uneven", "--to", "vllm-check", "--tp", "2", capsys=capsys)
    assert "vLLM cannot serve uneven on 2 GPU(s): 2 GPUs cannot share" in said


def test_nothing_is_sent_unless_asked(uneven: Path, sent: list[Any]) -> None:
    """And then to a private repository, unless it is to be public."""
    main(["export", "uneven", "--to", "hf", "--out", "new"])
    assert sent == []
    main(["export", "uneven", "--to", "hf", "--push", "me/model"])
    assert sent[0] == ("me/model", True)
    assert "modeling_pruned.py" in sent[1]
    pytest.importorskip("gguf")
    main(["export", "uneven", "--to", "gguf", "--push", "me/model", "--public"])
    assert sent[2:] == [("me/model", False), "uneven.gguf"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere", "--to", "hf"], "no folder 'nowhere'"),
        (["uneven", "--to", "hf"], "give --out FOLDER"),
        (["uneven", "--to", "hf", "--push", "me/x", "--dtype", "f16"], "give --out FOLDER"),
        (["uneven", "--to", "hf", "--out", "x", "--dtype", "q8_0"], "q8_0 is of GGUF files"),
        (["uneven", "--to", "hf", "--out", "."], "is not a plain model folder"),
        (["uneven", "--to", "gguf", "--out", "uneven"], "give one that ends in .gguf"),
        (["uneven", "--to", "gguf", "--push", "model"], "'user/name'"),
        (["uneven", "--to", "hf", "--out", "uneven"], "is the folder to export"),
        (["uneven", "--to", "hf", "--out", "x", "--pad", "32"], "--pad is for --to gguf"),
        (["uneven", "--to", "gguf", "--tp", "2"], "--tp is for --to vllm-check"),
        (["uneven", "--to", "hf", "--out", "x", "--shard_size", "abc"], "give a size such as 5GB"),
        (["uneven", "--to", "hf", "--out", "x", "--shard_size", "5"], "give a size such as 5GB"),
        (["uneven", "--to", "gguf", "--out", "uneven/model.safetensors"], "ends in .gguf"),
        (["uneven", "--to", "vllm-check", "--out", "x"], "--out is for --to hf and --to gguf"),
        (["uneven", "--to", "vllm-check", "--push", "me/x"], "--push is for --to hf"),
        (["uneven", "--to", "gguf", "--public"], "--public is for --push"),
        (
            ["uneven", "--to", "onnx"],
            "--to onnx is for image classifiers, and uneven holds a pruned",
        ),
        (["uneven", "--to", "pt"], "to=pt is not allowed. Allowed: hf, gguf, onnx, vllm-check."),
        (["uneven"], "required: to"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str],
    why: str,
    uneven: Path,
    sent: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is written or sent."""
    pytest.importorskip("gguf")
    before = sorted(Path().iterdir())
    assert why in refused("export", *arguments, capsys=capsys)
    assert sorted(Path().iterdir()) == before
    assert sent == []


@pytest.mark.usefixtures("sent")
def test_a_tampered_folder_is_refused_unless_nobody_looks(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the file's name."""
    content = bytearray((uneven / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (uneven / "model.safetensors").write_bytes(content)
    for command in (
        ["export", "uneven", "--to", "hf", "--out", "new"],
        ["export", "uneven", "--to", "hf", "--push", "me/model"],
        ["export", "uneven", "--to", "vllm-check"],
        ["generate", "uneven", "--prompt", "w1"],
    ):
        said = refused(*command, capsys=capsys)
        assert "uneven/model.safetensors is not the file that was saved" in said
        assert "--no-verify" in said
    main(["export", "uneven", "--to", "hf", "--out", "new", "--no-verify"])


# --- generate ---


def test_greedy_text_is_what_the_model_gives(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prompt, and the tokens after it."""
    tokenizer = AutoTokenizer.from_pretrained(uneven)
    prompt = tokenizer.decode([5, 6, 7])
    ids = tokenizer(prompt, return_tensors="pt")
    main(["generate", "uneven", "--prompt", prompt, "--new_tokens", "6", "--device", "cpu"])
    model = load(uneven)
    expected = model.generate(**ids, max_new_tokens=6, do_sample=False)
    new = expected[0, ids["input_ids"].shape[1] :]
    assert (
        capsys.readouterr().out == prompt + tokenizer.decode(new, skip_special_tokens=True) + "\n"
    )


def test_sampling_depends_on_the_seed_alone(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same seed gives the same text."""

    def text(seed: int) -> str:
        said = ["--prompt", "a", "--new_tokens", "20", "--temperature", "2", "--device", "cpu"]
        main(["generate", "uneven", *said, "--seed", str(seed)])
        return capsys.readouterr().out

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_a_chat_uses_the_template_and_gives_the_answer_alone(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one, that is said."""
    arguments = ["generate", "uneven", "--prompt", "a", "--chat", "--new_tokens", "4"]
    assert "has no chat template; leave --chat out" in refused(*arguments, capsys=capsys)
    tokenizer = AutoTokenizer.from_pretrained(uneven)
    tokenizer.chat_template = "{% for m in messages %}Q {{ m['content'] }} A{% endfor %}"
    tokenizer.save_pretrained(uneven)
    assert "is not the file that was saved" in refused(*arguments, capsys=capsys)
    (uneven / "checksums.json").unlink()
    main([*arguments, "--device", "cpu"])
    ids = tokenizer("Q a A", return_tensors="pt", add_special_tokens=False)
    expected = load(uneven).generate(**ids, max_new_tokens=4, do_sample=False)
    new = expected[0, ids["input_ids"].shape[1] :]
    assert capsys.readouterr().out == tokenizer.decode(new, skip_special_tokens=True) + "\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--new_tokens", "0"], "new_tokens=0; give 1 or more"),
        (["--temperature", "-1"], "temperature=-1.0; give 0 (greedy) or more"),
        (["--temperature", "nan"], "temperature=nan is not allowed. Allowed: a number"),
        (["--new_tokens", "2000"], "and the model can take 64; ask for fewer"),
        (["--device", "meta"], "device 'meta' cannot be used"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
    ],
)
def test_wrong_settings_are_one_line(
    arguments: list[str], why: str, uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the model is loaded."""
    assert why in refused("generate", "uneven", "--prompt", "a", *arguments, capsys=capsys)


@pytest.mark.parametrize("command", [["export", "--to", "gguf"], ["generate", "--prompt", "a"]])
def test_a_model_of_an_unknown_family_is_one_line(
    command: list[str], uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not transformers' advice to upgrade."""
    text = (uneven / "config.json").read_text().replace('"pruned_llama"', '"nope"')
    (uneven / "config.json").write_text(text)
    said = refused(command[0], "uneven", *command[1:], capsys=capsys)
    assert "nope" in said


def test_a_folder_without_a_tokenizer_is_one_line(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it is needed for."""
    for path in (*uneven.glob("*token*"), uneven / "checksums.json"):
        path.unlink()
    assert "has no tokenizer" in refused("generate", "uneven", "--prompt", "a", capsys=capsys)
