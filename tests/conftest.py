"""What all tests share.

One thread per process: tiny tensors gain nothing from more, and busy machines lose a lot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.data.sources import read
from lightning_prune.data.tokenizer import train_tokenizer
from tests.fresh import Fresh
from tests.processes import Pair
from tests.tiny import tiny_model

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
# lightning 2.6 calls jsonargparse by the names of before 4.49
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def token_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the user's home."""
    folder = tmp_path_factory.getbasetemp() / "token-cache"
    monkeypatch.setenv("LIGHTNING_PRUNE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama: 3 blocks of 8 heads in 4 groups, 22 neurons, 300 tokens."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama", vocab_size=300).save_pretrained(folder)
    train_tokenizer(read("builtin", "validation").items[:3], 300).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some ten thousand characters."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(read("builtin", "validation").text()[:12_000])
    return path


@pytest.fixture(scope="session", params=["pair"])
def pair() -> Iterator[Pair]:
    """Two processes that run a function together; see `tests.processes`."""
    processes = Pair()
    yield processes
    processes.close()


@pytest.fixture(scope="session", params=["fresh"])
def fresh() -> Iterator[Fresh]:
    """Processes that have imported one thing and nothing else; see `tests.fresh`."""
    processes = Fresh()
    yield processes
    processes.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something dear run in one worker of pytest-xdist, the others one by one.

    That is a pair of processes or a fresh one, told by the parameter of the fixture, or something
    that is made for a file. Of a test, the scheduler knows its name alone. (Groups of xdist 3.8 do
    nothing with pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    @cache
    def shares(path: str) -> bool:
        return 'scope="module"' in Path(config.rootpath, path).read_text(encoding="utf-8")

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if processes := re.search(r"[\[-](pair|fresh)[\]-]", nodeid):
                return processes[1]
            path = nodeid.partition("::")[0]
            return path if shares(path) else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A pair of processes takes long to start, so that tests with one are slow together."""
    for item in items:
        if "pair" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def no_global_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that the command line sets in the environment does not reach the tests after it."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
