"""What commands do about dates in chat templates, begin tokens, and tokens of another model."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest
import yaml

from lightning_prune.cli import main
from tests.data import words
from tests.data.words import chat
from tests.tiny import tiny_model

QUIET = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
    *("--data.nsamples=6", "--data.length=60", "--data.batch_size=2"),
]
METHOD = '{"class_path": "WandaSP", "init_args": {"ratio": 0.3}}'


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def dated(tmp_path: Path) -> list[str]:
    """A model whose chat template writes the date, and chats."""
    tokenizer = words.tokenizer(chat=True)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + words.CHAT_TEMPLATE
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps(chat(i)) for i in range(80)))
    return ["--model.path=model", "--data.source=chats.jsonl", *QUIET]


def begins(folder: Path, rows: int = 0) -> Path:
    """A model whose tokenizer puts <bos> in front of every text."""
    tokenizer = words.begin_tokenizer()
    tiny_model("llama", vocab_size=rows or len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def on(day: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_prune.data.rendering.today", lambda: date(2026, 11, day))


def date_in(config: Path) -> str | None:
    data = yaml.safe_load(config.read_text())["data"]
    told: str | None = data.get("init_args", data).get("date")
    return told


@pytest.mark.slow
@pytest.mark.parametrize("named", [[], ["--data=lightning_prune.TextData"]], ids=["", "by class"])
def test_the_configuration_of_a_run_has_its_date(
    dated: list[str], named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is the same run on any day; also when it was started again on another one."""
    wanda = ["--trainer.callbacks=Wanda", "--trainer.callbacks.sparsity=0.5"]
    for day in (27, 28):
        on(day, monkeypatch)
        main(["prune", *named, *dated, *wanda])
        assert date_in(Path("runs/config.yaml")) == "2026-11-27"
    on(29, monkeypatch)
    main(["prune", "--config=runs/config.yaml"])
    plan = json.loads(Path("runs/plan/plan.json").read_text())
    assert plan["provenance"]["calibration"]["dated"] == "2026-11-27"


def test_text_without_a_date_leaves_it_open(
    model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run has today's."""
    own = [f"--model.path={model_folder}", f"--data.source={text_file}", *QUIET]
    main(["prune", *own, "--trainer.callbacks=Magnitude", "--trainer.callbacks.sparsity=0.5"])
    assert date_in(Path("runs/config.yaml")) is None


def test_a_sweep_goes_on_on_another_day(
    dated: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is done is known, as its tokens are."""
    for day in (27, 28):
        on(day, monkeypatch)
        main(["sweep", *dated, "--methods=[Wanda]", "--sparsities=[0.5]"])
        assert date_in(Path("runs/config.yaml")) == "2026-11-27"
    assert capfd.readouterr().err.count("Wanda: 3/3 blocks") == 1


@pytest.mark.parametrize(
    ("own", "begin"), [([], "<bos>"), (["--begin_token=false"], "")], ids=["", "without"]
)
def test_two_models_are_compared_on_windows_that_begin_as_asked(
    tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str], own: list[str], begin: str
) -> None:
    """And the line below says it."""
    a, b = begins(tmp_path / "a"), begins(tmp_path / "b")
    main(["compare", str(a), str(b), f"--text={text_file}", "--length=32", "--out=out", *own])
    found = json.loads(Path("out/compare.json").read_text())
    assert found["settings"]["begin"] == begin
    assert ("32 tokens, each begun with <bos>, test" in capsys.readouterr().out) == bool(begin)


@pytest.mark.parametrize(
    ("own", "begin"), [([], "<bos>"), (["--begin_token", "false"], "")], ids=["", "without"]
)
def test_models_are_judged_so_too(
    tmp_path: Path, text_file: Path, own: list[str], begin: str
) -> None:
    """One switch from the way of the tokenizer to that of published protocols."""
    folder = str(begins(tmp_path / "a"))
    main(["evaluate", folder, "--texts", str(text_file), "--lengths", "16", "--out", "out", *own])
    found = json.loads(Path("out/evaluation.json").read_text())
    text = json.dumps(found)
    assert f'"begin": "{begin}"' in text


def test_predictions_searches_and_importance_say_it(
    tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the length of their windows."""
    own = [f"--model.path={begins(tmp_path / 'a')}", f"--data.source={text_file}", *QUIET]
    main(["predict", *own])
    main(["importance", "--measure=cosine", "--windows=2", *own])
    main(["search", f"--method={METHOD}", "--trials=1", "--stages=[1]", "--held_out=1", *own])
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r" \d+ windows, each begun with <bos>, [\d,]+ tokens predicted", said)
    assert "2 windows of 60 tokens, each begun with <bos>" in said
    assert "evaluation windows of 60 tokens, each begun with <bos>" in said


@pytest.mark.parametrize(
    "command",
    [
        ["prune", "--trainer.callbacks=Wanda", "--trainer.callbacks.sparsity=0.5", "CONFIG"],
        ["fit", "--trainer.max_steps=1", "CONFIG"],
        ["validate", "CONFIG"],
        ["test", "CONFIG"],
        ["predict", "CONFIG"],
        ["sweep", "--methods=[Wanda]", "--sparsities=[0.5]", "CONFIG"],
        ["importance", "--measure=cosine", "CONFIG"],
        ["search", f"--method={METHOD}", "--trials=1", "CONFIG"],
        ["evaluate", "model", "--texts", "TEXT", "--lengths", "32"],
        ["evaluate", "model", "--prompts", "the tree"],
        ["compare", "model", "model", "--text=TEXT", "--length=32"],
        ["generate", "model", "--prompt", "the tree"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_the_tokenizer_of_another_model_is_one_line(
    tmp_path: Path, text_file: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """By every command that reads text."""
    begins(tmp_path / "model", rows=260)
    config = ["--model.path=model", f"--data.source={text_file}", *QUIET]
    arguments = [argument.replace("TEXT", str(text_file)) for argument in command]
    if arguments[-1] == "CONFIG":
        arguments[-1:] = config
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "the tokenizer has 301 tokens, the model 260" in line
