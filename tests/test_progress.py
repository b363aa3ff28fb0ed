from __future__ import annotations

import io

import pytest
from rich.console import Console

from lightning_prune.progress import BlockProgress
from tests.fresh import Fresh

SHOW_CURSOR = "\x1b[?25h"


def run(console: Console, enabled: bool = True, fail_at: int | None = None) -> str:
    with BlockProgress(3, "Wanda [2:4]", enabled, console) as progress:
        for block in range(3):
            if block == fail_at:
                raise RuntimeError("block is broken")
            progress.advance(f"model.layers.{block}")
    return output(console)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def test_a_terminal_shows_block_count_and_memory() -> None:
    """The live line names the block and ends complete, with the cursor back."""
    text = run(terminal())
    assert "Wanda [2:4] model.layers.2" in text
    assert "3/3" in text
    assert "GB" in text
    assert text.rstrip().endswith(SHOW_CURSOR)


def test_a_log_file_gets_one_line() -> None:
    """Without a terminal nothing is written but the end."""
    text = run(Console(file=io.StringIO(), width=20))
    assert text.count("\n") == 1
    assert text.startswith("Wanda [2:4]: 3/3 blocks in ")


def test_disabled_is_silent() -> None:
    """Other ranks write nothing, on a terminal or not."""
    assert run(terminal(), enabled=False) == ""
    assert run(Console(file=io.StringIO()), enabled=False) == ""


def test_an_exception_gives_the_terminal_back() -> None:
    """The cursor is shown again and the error passes through."""
    console = terminal()
    with pytest.raises(RuntimeError, match="block is broken"):
        run(console, fail_at=1)
    assert output(console).rstrip().endswith(SHOW_CURSOR)


def test_an_exception_leaves_the_count_in_the_log() -> None:
    """The one line says how far it came."""
    console = Console(file=io.StringIO())
    with pytest.raises(RuntimeError, match="block is broken"):
        run(console, fail_at=2)
    assert output(console).startswith("Wanda [2:4]: 2/3 blocks in ")


def test_importing_it_does_not_import_what_draws_the_bar(fresh: Fresh) -> None:
    """Sweeps that show no bar do not pay for one."""
    code = (
        "import sys, lightning_prune.progress as progress\n"
        "with progress.BlockProgress(1, 'Wanda', enabled=False) as bar: bar.advance('0')\n"
        "assert 'rich.progress' not in sys.modules, 'rich.progress'\n"
    )
    done = fresh.run(code, after="lightning_prune")
    assert done.returncode == 0, done.stderr
