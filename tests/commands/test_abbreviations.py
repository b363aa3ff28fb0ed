"""Options are known by their whole names: an abbreviation is a mistake that says what was meant."""

from __future__ import annotations

import pytest

from lightning_prune.cli import COMMANDS, main
from lightning_prune.parsing import Refused

SHORT = {
    "evaluate": ("--prompt=hi", "evaluate has no argument 'prompt'. Did you mean prompts?"),
    "measure": ("--dev=cpu", "measure has no argument 'dev'. Did you mean device?"),
    "score": ("--cu=0.3", "score has no argument 'cu'. Did you mean cut?"),
    "export": ("--dty=float32", "export has no argument 'dty'. Did you mean dtype?"),
    "generate": ("--new-tok=3", "generate has no argument 'new_tok'. Did you mean new_tokens?"),
    "sparsity": ("--patt=2:4", "sparsity has no argument 'patt'. Did you mean patterns?"),
    "compare": ("--leng=32", "compare has no argument 'leng'. Did you mean length?"),
    "analyze": ("--ou=x", "scores has no argument 'ou'. Did you mean out?"),
}
"""By command, an abbreviation and what is said of it."""
CONFIGURED = {
    "--model.pat=x": "CausalLM has no argument 'pat'. Did you mean path?",
    "--trainer.accel=cpu": "PruneTrainer has no argument 'accel'. Did you mean accelerator?",
    "--conf=quickstart.yaml": "{} has no argument 'conf'. Did you mean config?",
}
"""The same of the commands that take a configuration."""
PLACES = {
    "export": ["quickstart", "--to=hf"],
    "compare": ["a", "b"],
    "analyze": ["scores", "x"],
    "score": [],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_abbreviation_names_the_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every command, in one line; nothing is done."""
    short = [SHORT[command]] if command in SHORT else list(CONFIGURED.items())
    for option, message in short:
        with pytest.raises((SystemExit, Refused)):
            main([command, *PLACES.get(command, ["quickstart"] * (command in SHORT)), option])
        written = capsys.readouterr().err
        assert message.format(command) in written
        assert written.count("\n") == 1


def test_what_stands_by_its_place_has_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not offered as one."""
    with pytest.raises(SystemExit):
        main(["sparsity", "--path", "quickstart"])
    assert "sparsity takes path by its place, not by name: leave --path out" in (
        capsys.readouterr().err
    )
