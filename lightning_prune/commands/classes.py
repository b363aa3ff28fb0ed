"""Whether a command line names a class for the model or the data; else CausalLM and TextData."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["names_class"]

CONFIG_OPTIONS = ("--config", "-c")


def names_class(key: str, command: str, arguments: Sequence[str]) -> bool:
    """Whether a class is named for a key: `--model Name`, `--model.class_path …`, or in a file.

    Args:
        key: "model" or "data".
        command: for files that configure several commands.
        arguments: of the command line.
    """
    values = [value for name, value in _options(arguments) if name == f"--{key}"]
    values += [path for name, path in _options(arguments) if name == f"--{key}.class_path"]
    if any(not Path(value).is_file() for value in values):
        return True
    files = [path for name, path in _options(arguments) if name in CONFIG_OPTIONS]
    sections = [section for path in files for section in _sections(Path(path), command)]
    sections += [section for path in values for section in [{key: _read(Path(path))}]]
    return any(_is_class(section.get(key)) for section in sections)


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options with their values: `--name=value`, and `--name value`."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            yield name, value if equals else following


def _sections(path: Path, command: str) -> list[dict[str, Any]]:
    """What a file says, for all commands and for this one."""
    config = _read(path)
    sections = [config, config.get(command) if isinstance(config, dict) else None]
    return [section for section in sections if isinstance(section, dict)]


def _read(path: Path) -> Any:
    """What a file says; nothing if it cannot be read: the parser says what is wrong with it."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _is_class(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and "class_path" in value)
