"""Recipes and fragments that come with the package, found by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_prune.parsing import nearest

__all__ = ["with_recipes"]

CONFIG_FLAGS = ("--config", "-c")
SHIPPED_IN = ("recipes", "configs")


def with_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments with the names of shipped recipes and fragments replaced by their paths.

    Raises:
        FileNotFoundError: there is no such file.
    """
    result: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if result and result[-1] in CONFIG_FLAGS:
            result.append(_recipe(argument))
        elif equals and name in CONFIG_FLAGS:
            result += [name, _recipe(value)]
        else:
            result.append(argument)
    return result


def _recipe(config: str) -> str:
    """A config file: the one at this path, else the shipped one of this name.

    Only a name by itself, or behind the name of its folder, means a shipped file; a path to
    somewhere else that does not exist must not run something else of the same name.
    """
    path = Path(config)
    if path.is_file():
        return config
    shipped = _shipped()
    *folder, name = path.parts or ("",)
    name = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    if name in shipped and (not folder or tuple(folder) in {(place,) for place in SHIPPED_IN}):
        return str(shipped[name])
    if name in shipped:
        raise FileNotFoundError(
            f"no config {config!r}: there is no such file. A {name} comes with the package: name "
            f"it without a folder, --config {name}"
        )
    near = nearest(name, list(shipped))
    guess = f" Did you mean {near}?" if near else ""
    raise FileNotFoundError(
        f"no config {config!r}: there is no such file here, and none of that name comes with the "
        f"package.{guess} It has {', '.join(shipped)}"
    )


def _shipped() -> dict[str, Path]:
    package = Path(__file__).parents[1]
    folders = [package / place for place in SHIPPED_IN]
    if (package.parent / "pyproject.toml").is_file():  # a checkout: recipes stand at its root
        folders.insert(0, package.parent / "recipes")
    return {file.name: file for folder in folders for file in sorted(folder.glob("*.yaml"))}
