"""Commands that take a configuration: whose model and data, and what a typing mistake says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_prune import CausalLM, Plan
from lightning_prune.cli import main
from lightning_prune.commands.classes import names_class
from lightning_prune.commands.configured import PruneCLI

THEIRS, THEIR_DATA = "tests.commands.theirs.Theirs", "tests.commands.theirs.TheirData"
SMALL = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
    "--trainer.log_every_n_steps=1",
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_null_is_null_again_in_the_configuration_of_the_run(model_folder: Path) -> None:
    """An argument that has another default does not come back with that."""
    Path("cut.yaml").write_text(
        f"model: {{path: {model_folder}}}\n"
        "data: {source: builtin, nsamples: 2, length: 16, batch_size: 2}\n"
        "trainer:\n  callbacks:\n"
        "    - {class_path: WandaSP, init_args: {ratio: 0.3, repair: null}}\n"
        "    - {class_path: WriteReport, init_args: {speed: false, prompt: 0, windows: 0}}\n"
    )
    main(["prune", "--config=cut.yaml", *SMALL])
    again = yaml.safe_load(Path("runs/config.yaml").read_text())
    settings = again["trainer"]["callbacks"][0]["init_args"]
    assert "repair" in settings
    assert settings["repair"] is None
    main(["prune", "--config=runs/config.yaml", *SMALL, "--trainer.default_root_dir=again"])
    first, second = Plan.load("runs/plan"), Plan.load("again/plan")
    assert second.fingerprint() == first.fingerprint()
    assert not second.corrected
    assert first.provenance["call"] == "WandaSP(ratio=0.3, repair=None)"


# --- classes of others ---


def test_any_module_and_any_data_can_be_named(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By class_path, in a file or on the command line; a recipe says what else they share."""
    made: list[tuple[Any, Any]] = []
    start = PruneCLI._run_subcommand

    def watch(self: PruneCLI, command: str) -> None:
        made.append((self.model, self.datamodule))
        start(self, command)

    monkeypatch.setattr(PruneCLI, "_run_subcommand", watch)
    Path("theirs.yaml").write_text(
        f"model: {{class_path: {THEIRS}, init_args: {{path: {model_folder}, weight: 0.5}}}}\n"
        f"data: {{class_path: {THEIR_DATA}}}\n"
    )
    wanda = ["--trainer.callbacks=Wanda", "--trainer.callbacks.sparsity=0.5", *SMALL]
    main(["fit", "--config=theirs.yaml", *wanda, "--trainer.max_steps=1"])
    assert Plan.load("runs/plan").sparsity() == 0.5
    assert Path("runs/recovered/model.safetensors").is_file()
    saved = yaml.safe_load(Path("runs/config.yaml").read_text())
    assert saved["model"]["class_path"] == THEIRS
    named = [f"--model={THEIRS}", f"--model.path={model_folder}", f"--data={THEIR_DATA}"]
    named += ["--data.windows=4", "--trainer.default_root_dir=again"]
    main(["prune", "--config=quickstart-wanda.yaml", *SMALL, *named])
    main(["validate", "--config=runs/config.yaml", *SMALL])
    (first, _), (second, data), (third, _) = made
    assert [type(model).__name__ for model in (first, second, third)] == ["Theirs"] * 3
    assert (first.weight, second.weight, third.weight) == (0.5, 1.0, 0.5)
    assert data.windows == 4
    assert "dense" in json.loads(Path("again/report.json").read_text())["stages"]


def test_studies_take_them_too(model_folder: Path) -> None:
    """As everything that takes a configuration."""
    own = [f"--model={THEIRS}", f"--model.path={model_folder}", f"--data={THEIR_DATA}"]
    main(["importance", "--measure=cosine", "--windows=2", *own, *SMALL])
    assert json.loads(Path("runs/importance.json").read_text())["windows"] == 2


@pytest.mark.parametrize(
    ("arguments", "config", "named"),
    [
        ([], "", False),
        (["--model.path=a"], "model: {path: a}", False),
        (["--model=file.yaml"], "", False),  # a file with the arguments of CausalLM
        (["--model=mine.Module"], "", True),
        (["--model", "Module"], "", True),
        (["--model.class_path=mine.Module"], "", True),
        (["--data=mine.Data"], "", False),
        ([], "model: {class_path: mine.Module}", True),
        ([], "model: mine.Module", True),
        ([], "fit: {model: {class_path: mine.Module}}", True),
        ([], "test: {model: {class_path: mine.Module}}", False),
        ([], "- a\n- b", False),
        ([], "a: [", False),
    ],
)
def test_a_class_is_named_or_it_is_the_usual_one(
    arguments: list[str], config: str, named: bool
) -> None:
    Path("file.yaml").write_text("path: quickstart")
    Path("config.yaml").write_text(config)
    assert names_class("model", "fit", ["fit", "--config", "config.yaml", *arguments]) is named


def test_a_class_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it cannot be imported, or is no module."""
    for given, message in (
        (
            "tests.commands.theirs.Nobody",
            "model=tests.commands.theirs.Nobody is not allowed: the module tests.commands.theirs "
            "has no class Nobody.",
        ),
        ("CausaLM", "model=CausaLM is not allowed. Did you mean CausalLM? Allowed: CausalLM"),
        (THEIR_DATA, f"model={THEIR_DATA} is not allowed. Allowed: CausalLM"),
    ):
        with pytest.raises(SystemExit):
            main(["fit", f"--model={given}"])
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert message in said


def test_a_typo_in_a_class_path_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a callback, a model, text and what a method takes; by an option and in a file."""
    (tmp_path / "mine_of_a_test.py").write_text("from lightning_prune import Wanda as MyMethod")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    wrong = "mine_of_a_test.MyMehtod"
    callback = f"{{class_path: {wrong}, init_args: {{sparsity: 0.5}}}}"
    Path("callback.yaml").write_text(f"trainer: {{callbacks: [{callback}]}}")
    Path("model.yaml").write_text(f"model: {{class_path: {wrong}, init_args: {{path: a}}}}")
    for key, arguments in {
        "trainer.callbacks": ["--config=callback.yaml"],
        "model": ["--config=model.yaml"],
        "data": [f"--data={wrong}"],
        "trainer.callbacks ": [f"--trainer.callbacks+={wrong}"],
        "model ": [f"--model.class_path={wrong}"],
        "Wanda.allocation": [
            *("--trainer.callbacks+=Wanda", f"--trainer.callbacks.allocation={wrong}"),
        ],
    }.items():
        with pytest.raises(SystemExit):
            main(["prune", *arguments])
        assert capsys.readouterr().err == (
            f"lightning-prune: error: {key.strip()}={wrong} is not allowed: the module "
            "mine_of_a_test has no class MyMehtod. Did you mean mine_of_a_test.MyMethod?\n"
        )


# --- typing mistakes ---

WANDA = "trainer: {{callbacks: [{{class_path: Wanda, init_args: {{{}}}}}]}}"
FLAP = "trainer: {{callbacks: [{{class_path: FLAP, init_args: {{{}}}}}]}}"
TYPOS = {
    "trainr: {max_steps: 1}": "fit has no argument 'trainr'. Did you mean trainer? Allowed: ",
    "trainer: {max_stps: 1}": "PruneTrainer has no argument 'max_stps'. Did you mean max_steps?",
    "model: {pth: a}": "CausalLM has no argument 'pth'. Did you mean path? Allowed: path, config",
    "data: {lenght: 3}": "TextData has no argument 'lenght'. Did you mean length? Allowed: source",
    "data: {seq_len: 3}": "TextData has no argument 'seq_len'. Did you mean length? Allowed",
    "trainer: {callbacks: [Wandda]}": "trainer.callbacks=Wandda is not allowed. Did you mean Wand",
    "trainer: {callbacks: [{clas_path: Wanda, init_args: {}}]}": "trainer.callbacks: "
    "clas_path is not allowed. Did you mean class_path? Allowed: class_path, init_args",
    "trainer: {callbacks: [{clas_path: Wanda}]}": "Callback: clas_path is not allowed. Did you me",
    WANDA.format("exlude: [a]"): "Wanda has no argument 'exlude'. Did you mean exclude? Allowed: ",
    "trainer: {callbacks: [{class_path: Progressive, init_args: {method: FLAPP}}]}": "Progressive."
    "method=FLAPP is not allowed. Did you mean FLAP?",
    WANDA.format("allocation: OWLL"): "Wanda.allocation=OWLL is not allowed. Did you mean OWL?",
    WANDA.format("scope: rows"): "Wanda.scope=rows is not allowed. Did you mean row? Allowed: ",
    WANDA.format("sparsity: half"): "Wanda.sparsity=half is not allowed. Allowed: a number, null.",
    FLAP.format("repair: Biass"): "FLAP.repair=Biass is not allowed. Did you mean Bias? Allowed: ",
    FLAP.format("repair: {class_path: LeastSquares, init_args: {rigde: 1}}"): "LeastSquares has no "
    "argument 'rigde'. Did you mean ridge? Allowed: ridge, ",
    "model: {path: quickstart, adapter: {class_path: LoRA, init_args: {drop: 1}}}": "LoRA has no "
    "argument 'drop'. Did you mean dropout? Allowed: r, alpha, dropout, ",
}


@pytest.mark.parametrize("config", TYPOS)
def test_a_typing_mistake_names_the_nearest_word_and_the_class(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is allowed, in one line, however deep it stands."""
    Path("typo.yaml").write_text(config)
    with pytest.raises(SystemExit) as exit:
        main(["fit", "--config=typo.yaml"])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lightning-prune: error: {TYPOS[config]}"), said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--trainer.max_stps=1", "PruneTrainer has no argument 'max_stps'. Did you mean max_step"),
        ("--modle.path=a", "fit has no argument 'modle'. Did you mean model? Allowed: config, "),
        ("--trainer.callbacks.exlude=[a]", "Wanda has no argument 'exlude'. Did you mean exclude"),
        ("--trainer.callbacks.allocation=Owl2", "Wanda.allocation=Owl2 is not allowed. Did you m"),
    ],
)
def test_so_it_does_on_the_command_line(
    argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--trainer.callbacks=Wanda", argument])
    assert capsys.readouterr().err.startswith(f"lightning-prune: error: {message}")


# --- runs that would do nothing, or too late ---


def test_a_checkpoint_that_is_not_there_is_said_before_anything_is_pruned(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    monkeypatch.setattr(CausalLM, "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(SystemExit):
        run("fit", "--config=quickstart-wanda.yaml", "--ckpt_path=nothing.ckpt")
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == "lightning-prune: error: there is no checkpoint 'nothing.ckpt' to go on from"


def test_without_a_method_that_is_said(
    run: Any, model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`prune` has nothing to do; `fit` trains, and says that it does nothing else."""
    with pytest.raises(SystemExit):
        run("prune")
    folder = run("fit", "--trainer.max_steps=1")
    assert "Nothing is pruned, only trained. To prune, name a method under trainer" in caplog.text
    caplog.clear()
    run("prune", "--config=quickstart-wanda.yaml")
    run("fit", "--trainer.max_steps=1", model=folder / "pruned")
    assert "Nothing is pruned" not in caplog.text
