"""`lightning-prune compare`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from lightning_prune import load, save
from lightning_prune.anatomy import Anatomy
from lightning_prune.cli import main
from lightning_prune.data import TextData
from lightning_prune.data.tokenizer import train_tokenizer
from lightning_prune.evaluation import perplexity
from lightning_prune.models.loading import Source
from lightning_prune.plan import Plan
from lightning_prune.report.comparison import ranges
from lightning_prune.surgery import shrink
from tests.tiny import tiny_model, uneven_plan


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def uneven(model_folder: Path, tmp_path: Path) -> Path:
    """The session's model, cut unevenly, with its tokenizer."""
    model = load(model_folder)
    plan = uneven_plan(model)
    shrink(Anatomy(model), plan)
    return save(model, tmp_path / "uneven", plan, Source(str(model_folder)).tokenizer())


def test_sizes_and_blocks_stand_side_by_side(
    model_folder: Path, uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal and, with the same figures, in three files."""
    main(["compare", str(model_folder), "uneven", "--out", "out"])
    said = capsys.readouterr().out
    for expected in (f"A  {model_folder}", "B  uneven", "query heads", "out/compare.svg"):
        assert expected in said
    assert "perplexity" not in said
    found = json.loads(Path("out/compare.json").read_text())
    blocks = [(block["b"]["kv_heads"], block["b"]["width"]) for block in found["blocks"]]
    assert blocks == [(1, 22), (4, 3), (3, 9)]
    dense, cut = (sum(p.numel() for p in load(f).parameters()) for f in (model_folder, uneven))
    assert (found["a"]["parameters"], found["b"]["parameters"]) == (dense, cut)
    assert f"{cut / dense:.1%}" in said
    text = Path("out/compare.md").read_text()
    assert f"| parameters | {dense:,} | {cut:,} | {cut / dense:.1%} |" in text
    assert "| 2 | 8 | 6 | 4 | 3 | 22 | 9 |" in text
    assert found["perplexity"] is None


def test_the_picture_has_two_bars_a_block_in_each_panel(model_folder: Path, uneven: Path) -> None:
    """As high as what is there."""
    main(["compare", str(model_folder), "uneven", "--out", "out"])
    svg = ElementTree.parse("out/compare.svg").getroot()
    heights = {
        side: [
            float(rect.get("height", "nan"))
            for rect in svg.iter()
            if side in rect.get("class", "").split()
        ]
        for side in "ab"
    }
    assert len(heights["a"]) == len(heights["b"]) == 3 * 3
    assert heights["b"][-1] / heights["a"][-1] == pytest.approx(9 / 22, abs=0.01)


def test_perplexity_is_of_the_same_windows(
    model_folder: Path, uneven: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As measured in Python; the window is said."""
    arguments = ["--text", str(text_file), "--length", "32", "--device", "cpu", "--out", "out"]
    main(["compare", str(model_folder), "uneven", *arguments])
    said = " ".join(capsys.readouterr().out.split())
    tokenizer = Source(str(model_folder)).tokenizer()
    assert tokenizer is not None
    batches = list(TextData(str(text_file), length=32).attach(tokenizer, 64).test_dataloader())
    found = json.loads(Path("out/compare.json").read_text())
    for name, folder in (("a", model_folder), ("b", uneven)):
        assert found["perplexity"][name] == pytest.approx(perplexity(load(folder), batches))
    windows = sum(len(batch["input_ids"]) for batch in batches)
    assert f"perplexity on {windows} windows of 32 tokens, test text of" in said
    assert found["settings"]["length"] == 32


def test_the_tokenizer_of_one_serves_both(
    model_folder: Path, uneven: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the vocabularies are of one size; and it is said."""
    for path in (*uneven.glob("token*"), uneven / "checksums.json"):
        path.unlink()
    text = ["--text", str(text_file), "--length", "32", "--split", "validation"]
    main(["compare", str(model_folder), "uneven", *text])
    assert "B has no tokenizer and was given the other's tokens" in capsys.readouterr().out
    save(tiny_model("llama", vocab_size=310), "larger")
    with pytest.raises(SystemExit):
        main(["compare", "larger", str(model_folder), *text])
    assert "the vocabularies differ (310 and 300 tokens)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", "larger", "uneven", *text])
    assert "neither folder has a tokenizer" in capsys.readouterr().err


def test_other_tokenizers_are_refused(
    model_folder: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured; sizes can be compared without."""
    shutil.copytree(model_folder, "other")
    train_tokenizer(["what one does not know " * 20, "abc def"], 300).save_pretrained("other")
    with pytest.raises(SystemExit):
        main(["compare", str(model_folder), "other", "--text", str(text_file), "--length", "32"])
    assert "cut this text differently" in capsys.readouterr().err
    main(["compare", str(model_folder), "other"])


def test_dropped_blocks_are_paired_by_their_place_in_the_dense_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What only one has is named: whole blocks, and tensors of blocks that both have."""
    save(tiny_model("llama", num_hidden_layers=5), "dense")
    plan = Plan()
    for block, kept in enumerate([[0], [], [], [0], [0]]):
        plan.set_kept("block", block, torch.tensor(kept, dtype=torch.long), 1)
    save(tiny_model("llama", num_hidden_layers=3, attention_bias=True), "shallow", plan)
    main(["compare", "dense", "shallow", "--out", "out"])
    said = capsys.readouterr().out
    assert "only in A: blocks 1-2" in said
    assert "only in B: self_attn.q_proj.bias in blocks 0, 3-4" in said
    assert any(line.split()[:3] == ["1-2", "8", "-"] for line in said.splitlines())
    found = json.loads(Path("out/compare.json").read_text())
    assert [block["b"] is None for block in found["blocks"]] == [False, True, True, False, False]


def test_models_of_other_kinds_can_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """Where type, sizes or dtype differ, they are shown."""
    save(tiny_model("llama"), "llama")
    save(tiny_model("opt", dtype=torch.bfloat16), "opt")
    main(["compare", "llama", "opt"])
    said = " ".join(capsys.readouterr().out.split())
    for expected in ("model type llama opt", "head size 6 4", "dtype float32 bfloat16"):
        assert expected in said
    assert "hidden size" not in said


def test_blocks_that_are_alike_take_one_row(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model compared with itself differs in nothing."""
    main(["compare", str(model_folder), str(model_folder)])
    said = capsys.readouterr().out
    assert any(line.split()[:3] == ["0-2", "8", "8"] for line in said.splitlines())
    assert "only in" not in said


def test_runs_of_numbers_are_short() -> None:
    """A run by its ends."""
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert ranges([]) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model"], "the following arguments are required: b"),
        (["model", "nothing"], "no folder 'nothing'"),
        (["model", "quickstrat"], "config.json and weights. Did you mean quickstart?"),
        (["model", "."], "the folder '.' holds no model"),
        (["model", "model", "--text", "nothing.txt"], "there is no text file or folder"),
        (["model", "model", "--text", "builtin", "--length", "65"], "more than the 64 tokens"),
        (["model", "model", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["model", "model", "--out", "file"], "file is a file"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in all commands."""
    Path("file").touch()
    Path("model").symlink_to(model_folder)
    with pytest.raises(SystemExit) as exit:
        main(["compare", *arguments])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-prune: error: ")
    assert message in said
    assert said.count("\n") == 1
