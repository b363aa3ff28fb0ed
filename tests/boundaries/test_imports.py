"""Imports go one way, and importing the package touches no device.

A room is a folder or a file right below the package. What a module imports anywhere counts: at its
top, inside a function, and for type checkers only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lightning_prune"
ROOT_ROOM = "lightning_prune"

# Lowest first. A room may import its own layer, without going in circles, and those above it here.
LAYERS = (
    {"files", "distributed", "version"},
    {"plan", "plan_file", "anatomy", "evidence", "allocation", "selection", "repair", "reuse"},
    {"method", "provenance"},
    {
        *("modeling", "checkpoints", "surgery", "sweep", "evaluation", "analysis", "report"),
        *("export", "attribution", "kernels"),
    },
    {"pipeline"},
    {"data", "models", "callbacks"},
    {"cli"},
    {"__main__", ROOT_ROOM},
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
HOST_ROOMS = LAYERS[5] | LAYERS[6] | LAYERS[7]  # the only ones that know lightning
TENSOR_ROOMS = LAYERS[0] | LAYERS[1] | LAYERS[2]

LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning"}
MODEL_LIBRARIES = {"accelerate", "bitsandbytes", "datasets", "peft", "tokenizers", "transformers"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(dotted: str) -> str:
    """The room of a module or of a name in it: the part after the package's name."""
    _, _, rest = dotted.partition(".")
    room = rest.partition(".")[0]
    return room if room in LAYER_OF or _is_room(room) else ROOT_ROOM


def _is_room(name: str) -> bool:
    return bool(name) and ((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file())


def dotted_name(path: Path) -> str:
    parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Dotted names of everything that the source imports; relative imports are resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")
                anchor = up[: len(up) - node.level + is_package]
                base = ".".join([*anchor, base] if base else anchor)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> Iterator[str]:
    is_package = path.name == "__init__.py"
    return imported_names(path.read_text(encoding="utf-8"), dotted_name(path), is_package)


def relation(importer: str, imported: str) -> str | None:
    """What is wrong with a module `importer` importing `imported`, or None."""
    room = room_of(importer)
    top = imported.partition(".")[0]
    if top in LIGHTNING and room not in HOST_ROOMS:
        return f"{importer} imports {imported}: only {sorted(HOST_ROOMS)} may know lightning"
    if top in MODEL_LIBRARIES and room in TENSOR_ROOMS:
        return f"{importer} imports {imported}: {sorted(TENSOR_ROOMS)} stand on torch alone"
    if top == PACKAGE.name and LAYER_OF[room_of(imported)] > LAYER_OF[room]:
        return f"{importer} imports {imported}, which stands above it"
    return None


def test_there_is_something_to_test() -> None:
    """The package was found."""
    assert PACKAGE / "plan.py" in MODULES


@pytest.mark.parametrize("path", MODULES, ids=dotted_name)
def test_every_module_has_a_layer(path: Path) -> None:
    """A new room is given its place before it is built on."""
    assert room_of(dotted_name(path)) in LAYER_OF, "give the new room a place in LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=dotted_name)
def test_imports_go_down(path: Path) -> None:
    """No module imports a room above its own, or a library that its room must not know."""
    module = dotted_name(path)
    assert [wrong for name in imports_of(path) if (wrong := relation(module, name))] == []


def test_rooms_do_not_import_each_other_in_circles() -> None:
    """Rooms of one layer can be put in an order as well."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        room = room_of(dotted_name(path))
        own = (name for name in imports_of(path) if name.partition(".")[0] == PACKAGE.name)
        graph.setdefault(room, set()).update({room_of(name) for name in own} - {room})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import each other: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("source", "importer", "allowed"),
    [
        ("import torch", "lightning_prune.plan", True),
        ("from lightning_prune.plan import Plan", "lightning_prune.sweep.forward", True),
        ("from lightning_prune.sweep import forward", "lightning_prune.plan", False),
        ("from lightning_prune import pipeline", "lightning_prune.report.table", False),
        ("from lightning_prune import prune", "lightning_prune.pipeline", False),
        ("from ..callbacks import Wanda", "lightning_prune.selection.count", False),
        ("from . import pattern", "lightning_prune.selection.count", True),
        ("def f():\n    import transformers", "lightning_prune.anatomy.families", False),
        ("def f():\n    import transformers", "lightning_prune.export.hf", True),
        ("if x:\n    from lightning.pytorch import Trainer", "lightning_prune.pipeline", False),
        ("from lightning.pytorch import Trainer", "lightning_prune.callbacks.base", True),
        ("import lightning_utilities", "lightning_prune.pipeline", True),
    ],
)
def test_the_rules_are_what_they_are_meant_to_be(source: str, importer: str, allowed: bool) -> None:
    """The checker itself tells right from wrong, also deep inside a function."""
    wrong = [relation(importer, name) for name in imported_names(source, importer)]
    assert (wrong == [None]) is allowed


def run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_everything_does_not_start_cuda() -> None:
    """A process that forks or chooses its device later must find CUDA untouched."""
    run_python(
        "import torch\n"
        "def refuse(*_): raise SystemExit('importing lightning_prune started CUDA')\n"
        "torch.cuda._lazy_init = refuse\n"
        "import lightning_prune\n"
        "for name in lightning_prune.__all__: getattr(lightning_prune, name)\n"
        "assert not torch.cuda.is_initialized()\n"
    )


def test_importing_the_package_does_not_import_lightning() -> None:
    """Pruning and loading without a Trainer do not pay for one."""
    run_python("import sys, lightning_prune\nassert 'lightning' not in sys.modules\n")
