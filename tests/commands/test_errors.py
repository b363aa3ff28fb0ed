"""A mistake is one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.cli import main
from lightning_prune.commands import errors, recipes
from tests.fresh import Fresh

MISTAKES = {
    "no such model": (["--model.path=no/such/model/here"], "no model 'no/such/model/here'"),
    "sparsity above 1": (
        ["--trainer.callbacks.sparsity=1.2"],
        r"Wanda: sparsity=1.2 is not allowed; it is in \[0, 1\)",
    ),
    "pattern does not divide": (
        ["--trainer.callbacks.sparsity=null", "--trainer.callbacks.pattern=2:5"],
        "2:5 needs input features divisible by 5; model.layers.0.self_attn.q_proj has 32",
    ),
    "every group": (
        ["--trainer.callbacks=GQATaylor", "--trainer.callbacks.ratio=1.0"],
        "would remove every GQA group",
    ),
    "typo": (
        ["--trainer.callbacks.sparsty=0.5"],
        "Wanda has no argument 'sparsty'. Did you mean sparsity[?] Allowed: .*sparsity, pattern",
    ),
    "no such config": (["--config=nothing.yaml"], "no config 'nothing.yaml'.*quickstart.yaml"),
    "no such text": (["--data.source=./nothing.txt"], "nothing.txt"),
    "a folder that cannot be": (["--trainer.default_root_dir=/proc/x"], "/proc/x"),
    "window too long": (["--data.length=100"], "length=100 is more than the 64 tokens"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(
    mistake: str,
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The last line says what is wrong and what to do; the exit status is 2."""
    arguments, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(
            [
                *("prune", "--config", "quickstart-wanda.yaml", f"--model.path={model_folder}"),
                *(f"--data.source={text_file}", "--data.length=32", "--data.nsamples=8"),
                *("--trainer.accelerator=cpu", "--trainer.default_root_dir=run", *arguments),
            ]
        )
    assert exit.value.code == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("lightning-prune: error: ")
    assert re.search(message, last), last


def test_an_unknown_model_type_is_one_line(
    run: Any, tmp_path: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It lists the known ones and says where tables are added."""
    folder = tmp_path / "unknown"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))
    with pytest.raises(SystemExit):
        run("prune", "--config=quickstart-wanda.yaml", model=folder)
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "unknown model type 'gpt_neox'. Known: beit" in last
    assert "lightning_prune.register_family" in last


# --- names of configs ---


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "recipes/quickstart.yaml"])
def test_a_shipped_config_is_named_with_or_without_its_ending(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By itself, or behind the name of its folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["fit", "--config", name, "--print_config"])
    assert exit.value.code == 0
    assert "runs/quickstart" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["/no/such/dir/llama3.yaml", "mine/llama3.yaml", "../llama3.yaml"])
def test_a_path_that_is_not_there_is_not_replaced_by_a_shipped_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user meant a file of their own."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["fit", f"--config={name}", "--print_config"])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert f"no config {name!r}: there is no such file. A llama3.yaml comes with" in error


def test_recipes_beside_an_installed_package_are_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside an installed package lie other packages."""
    package = tmp_path / "site-packages" / "lightning_prune"
    (package / "commands").mkdir(parents=True)
    for folder in (package.parent / "recipes", package / "recipes"):
        folder.mkdir()
    (package.parent / "recipes" / "theirs.yaml").touch()
    (package / "recipes" / "ours.yaml").touch()
    monkeypatch.setattr(recipes, "__file__", str(package / "commands" / "recipes.py"))
    assert recipes._shipped() == {"ours.yaml": package / "recipes" / "ours.yaml"}
    (package.parent / "pyproject.toml").touch()  # a checkout
    assert set(recipes._shipped()) == {"theirs.yaml", "ours.yaml"}


# --- values that are not allowed ---

VALUES = {
    "model.adapter=Lora": r"model.adapter=Lora is not allowed. Did you mean .* Allowed: .*none",
    "model.adapter.r=3": r"Name it first: --model.adapter LoRA --model.adapter.r",
    "model.dtype=float8": r"model.dtype=float8 is not .* Allowed: auto, float32, bfloat16, float16",
    "trainer.precision=fp8x": r"trainer.precision=fp8x is not allowed. Allowed: .*bf16-mixed",
    "trainer.strategy=fsdp3": r"trainer.strategy=fsdp3 is not allowed. Allowed: auto, ddp, fsdp2",
    "trainer.accelerator=tpux": r"trainer.accelerator=tpux: You selected an invalid accelerator",
    "trainer.devices=x": r"refuses trainer.devices=x: `devices` selected with `CPUAccelerator`",
    "trainer.max_steps=many": r"trainer.max_steps=many is not allowed. Allowed: a whole number",
    "trainer.callbacks=Wandda": r"trainer.callbacks=Wandda .* Did you mean Wanda\?",
    "trainer.callbacks.sparsity=half": r"sparsity=half is not allowed. Allowed: a number, null",
}


@pytest.mark.parametrize("argument", VALUES)
def test_a_value_that_is_not_allowed_is_named_with_those_that_are(
    argument: str, run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Key, value and what is allowed, not the last of all types that were tried."""
    config = "--config=quickstart-wanda.yaml"
    with pytest.raises(SystemExit) as exit:
        run("prune", config, own=[f"--{argument}"])
    assert exit.value.code == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert re.search(VALUES[argument], last), last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.callbacks=Evaluate"], "nothing to evaluate: give texts, tasks or prompts"),
        (["--trainer.callbacks=Evaluate", "--trainer.callbacks.prompts=[a]",
          "--trainer.callbacks.few_shot=-1"], "few_shot=-1; 0 at least"),
        (["--trainer.callbacks=Wanda", "--trainer.callbacks.sparsity=1.2"], "Wanda: sparsity=1.2"),
        (['--trainer.callbacks=[{class_path: Evaluate, init_args: {tasks: [a], limit: 0}}]'],
         "limit=0; 1 at least"),
        (["--model.adapter=LoRA", "--model.adapter.r=0"], "LoRA needs a rank r of at least 1"),
        (["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss",
          "--trainer.callbacks.mode=up"], "`mode` can be min, max, got up"),
    ],
)  # fmt: skip
def test_what_a_class_says_of_its_arguments_is_the_line(
    arguments: list[str], message: str, run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the types that were tried it belongs to; not the first one's complaint."""
    with pytest.raises(SystemExit) as exit:
        run("test", *arguments)
    assert exit.value.code == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"lightning-prune: error: {message}"), last


def test_a_gpu_that_is_not_there_is_one_line(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Asking for an accelerator that the machine has not."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(SystemExit):
        run("prune", "--config=quickstart-wanda.yaml", own=["--trainer.accelerator=gpu"])
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "refuses trainer.accelerator=gpu" in last


# --- several processes ---


TWO = """
import os, sys
from pathlib import Path
from lightning_prune.cli import main
from tests.processes import environment, form_group

rank = 0 if os.fork() else 1
os.environ.update(environment(rank))
form_group(Path.cwd(), rank)
main(sys.argv[1:])
"""
"""A process and one that it has started, as Lightning does it."""


@pytest.mark.slow
def test_an_error_of_all_processes_is_said_once(
    fresh: Fresh, model_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    """By the first one; the others see it go."""
    done = fresh.run(
        TWO,
        *("prune", "--config=quickstart-wanda.yaml", f"--model.path={model_folder}"),
        *(f"--data.source={text_file}", "--data.length=32", "--data.nsamples=32"),
        *("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"),
        *("--trainer.callbacks.sparsity=null", "--trainer.callbacks.pattern=2:5"),
        after="lightning_prune.callbacks",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.count("lightning-prune: error") == 1, done.stderr
    assert "2:5 needs input features divisible by 5" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_one_process_alone_is_said_by_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the first process lives on, it has not said anything."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(errors, "WAIT", 0.0)
    with pytest.raises(SystemExit):
        errors.fail("no room")
    assert capsys.readouterr().err == "lightning-prune: error in process 1: no room\n"


@pytest.mark.parametrize("afterwards", [[7, 7, 1], [1]], ids=["goes", "has gone"])
def test_an_error_behind_the_first_process_s_is_not_said(
    afterwards: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has told the user, and may be gone already when another process fails because of that."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(errors, "WAIT", 0.5)
    parents = iter([7, *afterwards, 1, 1, 1, 1, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    errors.note_parent()
    with pytest.raises(SystemExit):
        errors.fail("no room")
    assert capsys.readouterr().err == ""
