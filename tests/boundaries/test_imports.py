"""Imports go one way.

A room is a folder or a file right below the package. What a module imports anywhere counts: at its
top, inside a function, and for type checkers only.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lightning_prune"
ROOT_ROOM = "lightning_prune"

# Lowest first. A room may import its own layer, without going in circles, and those above it here.
LAYERS = (
    {
        *("version", "files", "checks", "digests", "distributed"),
        *("tokens", "progress", "parsing", "class_paths", "machine", "annotations"),
    },
    {"plan", "anatomy", "attribution", "evidence", "selection", "scores", "allocation", "repair"},
    {"methods"},
    {
        *("modeling", "checkpoints", "surgery", "sweep"),
        *("evaluation", "analysis", "kernels", "report", "export"),
    },
    {"pipeline"},
    {"data", "models", "callbacks"},
    {"studies"},
    {"commands"},
    {"cli", "__main__", ROOT_ROOM},
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
TENSOR_ROOMS = set().union(*LAYERS[:3])
HOST_ROOMS = set().union(*LAYERS[5:])  # the only ones that know lightning

LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning"}
MODEL_LIBRARIES = {"accelerate", "bitsandbytes", "datasets", "peft", "tokenizers", "transformers"}

LINES = 300

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
    assert PACKAGE / "plan" / "plan.py" in MODULES
    assert len(MODULES) > 100


@pytest.mark.parametrize("path", MODULES, ids=dotted_name)
def test_every_module_has_a_layer(path: Path) -> None:
    """A new room is given its place before it is built on."""
    assert room_of(dotted_name(path)) in LAYER_OF, "give the new room a place in LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=dotted_name)
def test_imports_go_down(path: Path) -> None:
    """No module imports a room above its own, or a library that its room must not know."""
    module = dotted_name(path)
    assert [wrong for name in imports_of(path) if (wrong := relation(module, name))] == []


def test_the_map_shows_every_room() -> None:
    """docs/architecture.md names each file and folder of the layers above."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    map_of_rooms = text.partition("## Rooms")[2].split("```")[1]
    rooms = set(LAYER_OF) - {ROOT_ROOM, "__main__"}
    names = {room: f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py" for room in rooms}
    assert [room for room, name in names.items() if name not in map_of_rooms] == []


def own_imports(path: Path) -> Iterator[str]:
    return (name for name in imports_of(path) if name.partition(".")[0] == PACKAGE.name)


def circle_in(graph: Mapping[str, set[str]]) -> str:
    """A way from a node back to itself; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def test_rooms_do_not_import_each_other_in_circles() -> None:
    """Rooms of one layer can be put in an order as well."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        room = room_of(dotted_name(path))
        graph.setdefault(room, set()).update({room_of(name) for name in own_imports(path)} - {room})
    assert circle_in(graph) == ""


def module_of(dotted: str, modules: Collection[str]) -> str:
    """The module that a dotted name is, or is defined in."""
    while dotted not in modules:
        dotted = dotted.rpartition(".")[0]
    return dotted


def module_graph(sources: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """From the dotted names that each module imports to the modules that it imports."""
    return {
        module: {module_of(name, sources) for name in names} for module, names in sources.items()
    }


def test_modules_do_not_import_each_other_in_circles() -> None:
    """Not inside of a room either, where the order of two files would come to matter."""
    graph = module_graph({dotted_name(path): list(own_imports(path)) for path in MODULES})
    assert circle_in(graph) == ""


def test_a_circle_of_modules_is_seen() -> None:
    """Between two files, through a third, and through the room's own door."""
    names = {"p": [], "p.a": ["p.b.Name"], "p.b": ["p.c"], "p.c": []}
    assert circle_in(module_graph(names)) == ""
    assert circle_in(module_graph(names | {"p.c": ["p.a.Other"]}))
    assert circle_in(module_graph(names | {"p.c": ["p.c.Own"]}))
    room = {"p": [], "p.r": ["p.r.a.A", "p.r.b.B"], "p.r.a": [], "p.r.b": ["p.r.a.A"]}
    assert circle_in(module_graph(room)) == ""
    assert circle_in(module_graph(room | {"p.r.b": ["p.r.A"]}))


def test_no_file_is_long() -> None:
    """What takes more has more than one purpose; tests, benchmarks and stubs too."""
    root = PACKAGE.parent
    folders = (PACKAGE, *(root / name for name in ("tests", "benchmarks", "docs")))
    files = [path for folder in folders for path in folder.rglob("*.py*") if path.suffix != ".pyc"]
    lines = {str(f.relative_to(root)): len(f.read_text("utf-8").splitlines()) for f in files}
    assert len(lines) > 500
    assert {name: count for name, count in lines.items() if count > LINES} == {}


@pytest.mark.parametrize(
    ("source", "importer", "allowed"),
    [
        ("import torch", "lightning_prune.plan.plan", True),
        ("from lightning_prune.plan import Plan", "lightning_prune.sweep.forward", True),
        ("from lightning_prune.sweep import forward", "lightning_prune.plan.plan", False),
        ("from lightning_prune import pipeline", "lightning_prune.report.tables", False),
        ("from lightning_prune import prune", "lightning_prune.pipeline.run", False),
        ("from lightning_prune import distributed", "lightning_prune.evidence.base", True),
        ("from ..callbacks import Wanda", "lightning_prune.selection.count", False),
        ("from . import pattern", "lightning_prune.selection.count", True),
        ("from lightning_prune.methods import units", "lightning_prune.scores.taylor", False),
        ("from lightning_prune.scores import taylor", "lightning_prune.methods.units", True),
        ("from lightning_prune.callbacks import base", "lightning_prune.methods.units", False),
        ("from lightning_prune.commands import run", "lightning_prune.studies.grid", False),
        ("def f():\n    import transformers", "lightning_prune.anatomy.families", False),
        ("def f():\n    import transformers", "lightning_prune.methods.base", False),
        ("def f():\n    import transformers", "lightning_prune.export.hf", True),
        ("from lightning_prune.sweep import collect", "lightning_prune.modeling.registry", True),
        ("if x:\n    from lightning.pytorch import Trainer", "lightning_prune.pipeline.run", False),
        ("from lightning.pytorch import Trainer", "lightning_prune.callbacks.base", True),
        ("import lightning_utilities", "lightning_prune.pipeline.run", True),
    ],
)
def test_the_rules_are_what_they_are_meant_to_be(source: str, importer: str, allowed: bool) -> None:
    """The checker itself tells right from wrong, also deep inside a function."""
    wrong = [relation(importer, name) for name in imported_names(source, importer)]
    assert (wrong == [None]) is allowed
