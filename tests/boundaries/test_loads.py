"""What importing the package, or some rooms of it, loads and touches: seen in fresh processes."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.boundaries.test_imports import (
    LAYERS,
    MODEL_LIBRARIES,
    MODULES,
    PACKAGE,
    dotted_name,
    room_of,
)
from tests.fresh import STAGES, Fresh


def succeed(fresh: Fresh, code: str, after: str) -> None:
    done = fresh.run(code, after=after)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_importing_everything_does_not_start_cuda(fresh: Fresh) -> None:
    """A process that forks or chooses its device later must find CUDA untouched."""
    succeed(
        fresh,
        "import torch, lightning_prune\n"
        "for name in lightning_prune.__all__: getattr(lightning_prune, name)\n"
        "assert not torch.cuda.is_initialized()\n",
        after="lightning_prune.callbacks",
    )


@pytest.mark.slow
@pytest.mark.parametrize("after", STAGES)
def test_starting_cuda_would_be_seen(fresh: Fresh, after: str) -> None:
    """Whatever is imported, it ends the process."""
    done = fresh.run("import torch\ntry: torch.cuda.init()\nexcept Exception: pass", after=after)
    assert (done.returncode, done.stderr) == (1, "CUDA was started\n")


LATER = ("lightning", "peft", "rich", "datasets", "jsonargparse")


def test_importing_the_package_imports_nothing_for_later(fresh: Fresh) -> None:
    """It makes uneven models known to transformers, and that is all that is waited for."""
    succeed(
        fresh,
        "import sys\n"
        f"found = [name for name in {LATER} if name in sys.modules]\n"
        "assert not found, found\n",
        after="lightning_prune",
    )


ALONE = """
import importlib, sys, types

for name in {blocked}:
    sys.modules[name] = None  # every import of it fails, wherever it stands
package = types.ModuleType("lightning_prune")
package.__path__ = [{path!r}]
sys.modules["lightning_prune"] = package
for name in {modules}:
    importlib.import_module(name)
"""


def alone(modules: Collection[str]) -> str:
    """A program that imports modules where nothing but torch can be imported.

    The package's own `__init__` is left out: it makes models known to transformers.
    """
    blocked = (*sorted(MODEL_LIBRARIES), *LATER)
    return ALONE.format(blocked=blocked, path=str(PACKAGE), modules=sorted(modules))


def test_tensor_rooms_stand_on_torch_alone(fresh: Fresh) -> None:
    """From plan to methods, every module is imported where no model library and no host can be."""
    modules = {dotted_name(path) for path in MODULES}
    rooms = {module for module in modules if room_of(module) in LAYERS[1] | LAYERS[2]}
    assert len(rooms) > 40
    succeed(
        fresh,
        alone(rooms)
        + "import torch\n"
        + "from lightning_prune.scores.wanda import wanda_score\n"
        + "assert wanda_score(torch.ones(2, 3), torch.ones(3)).shape == (2, 3)\n",
        after="torch",
    )


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("lightning_prune.callbacks.base", "lightning"),
        ("lightning_prune.surgery.shrink", "transformers"),
    ],
)
def test_what_needs_more_is_seen_by_that(fresh: Fresh, module: str, library: str) -> None:
    """The program above would notice a room that is not of tensors alone."""
    with pytest.raises(AssertionError, match=f"(import of |No module named '){library}"):
        succeed(fresh, alone([module]), after="torch")


def test_importing_results_does_not_import_what_shows_them(fresh: Fresh) -> None:
    """Pruning and saving do not pay for tables on a terminal."""
    succeed(
        fresh,
        "import sys, lightning_prune.report.run, lightning_prune.report.grid\n"
        "import lightning_prune.report.scores, lightning_prune.progress\n"
        "assert not {'rich', 'lightning'} & set(sys.modules)\n",
        after="lightning_prune",
    )
