"""What long work has finished, step by step, so that it can go on after it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_prune.files import write_json

__all__ = ["Journal"]


class Journal:
    """Finished steps in a folder: a JSON file each, written whole or not at all.

    A record is found again by all that it depends on: its step, and what all steps of the work
    have in common. Records of other work in the same folder are left alone.

    ```python
    journal = Journal("runs/mine/cells", {"model": fingerprint(model), "version": __version__})
    for method in methods:
        step = {"call": repr(method)}
        result = journal.get(step) or journal.put(step, measured(method))
    ```

    Args:
        folder: made with the first record.
        work: what all steps depend on, in JSON's types.
    """

    def __init__(self, folder: str | Path, work: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.work: dict[str, Any] = _plain(dict(work))

    def get(self, step: Mapping[str, Any]) -> Any:
        """The record of a step; None where it is not finished, or its file cannot be read."""
        step, path = self._place(step)
        entry = _read(path)
        if entry is None or (entry["work"], entry["step"]) != (self.work, step):
            return None
        return entry["record"]

    def put(self, step: Mapping[str, Any], record: Any) -> Any:
        """Keep the record of a finished step, in JSON's types, and return it as it will be read.

        Raises:
            TypeError: JSON cannot say it.
            OSError: it cannot be written; an older record of the step is left as it was.
        """
        step, path = self._place(step)
        write_json(path, {"work": self.work, "step": step, "record": record})
        return _plain(record)

    def check(self) -> None:
        """Refuse to go on in a folder with records of other work.

        Raises:
            ValueError: there are some; it is said in what their work differs.
        """
        for path, entry in self._entries():
            if entry["work"] != self.work:
                there = entry["work"]
                keys = sorted({*there, *self.work})
                differences = [
                    f"{key} was {there.get(key)!r} and is {self.work.get(key)!r}"
                    for key in keys
                    if there.get(key) != self.work.get(key) or (key in there) != (key in self.work)
                ]
                raise ValueError(
                    f"{self.folder} has steps of other work ({path.name}): "
                    f"{'; '.join(differences)}. Go on with what it was begun with, or give another "
                    "folder."
                )

    def _entries(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in sorted(self.folder.glob("*.json")):
            if (entry := _read(path)) is not None:
                yield path, entry

    def _place(self, step: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
        step = _plain(dict(step))
        text = json.dumps([self.work, step], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        return step, self.folder / f"{name}.json"


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def _read(path: Path) -> dict[str, Any] | None:
    """What is in a file, if it is a record and whole."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return entry if entry.keys() >= {"work", "step", "record"} else None
    except (AttributeError, OSError, ValueError):
        return None
