"""What long work has finished, step by step, so that it can go on after it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.files import save_tensors, write_json

__all__ = ["Journal"]


class Journal:
    """Finished steps in a folder: a JSON file each, perhaps with tensors, whole or not at all.

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
        self.work = _plain(dict(work))

    def get(self, step: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of a step; None where it is not finished, or its file cannot be read."""
        step, path = self._place(step)
        entry = _read(path)
        if entry is None or (entry["work"], entry["step"]) != (self.work, step):
            return None
        record: dict[str, Any] = entry["record"]
        return record

    def put(
        self,
        step: Mapping[str, Any],
        record: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, Any]:
        """Keep the record of a finished step, in JSON's types, and return it as it will be read.

        Args:
            step: which.
            record: what it has come to.
            tensors: what JSON cannot say; in a file beside the record, written before it.

        Raises:
            TypeError: JSON cannot say it.
            OSError: it cannot be written; an older record of the step is left as it was.
        """
        step, path = self._place(step)
        plain = _plain(dict(record))
        if tensors is not None:
            here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_tensors(path.with_suffix(".safetensors"), here)
        write_json(path, {"work": self.work, "step": step, "record": plain})
        return plain

    def tensors(self, step: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors beside the record of a finished step.

        Raises:
            ValueError: their file is damaged.
        """
        _, path = self._place(step)
        reader = TensorReader(path.with_suffix(".safetensors"))
        return {name: reader.tensor(name) for name in reader.info}

    def check(self) -> None:
        """Refuse to go on in a folder with records of other work.

        Raises:
            ValueError: there are some; it is said in what their work differs. Or it is a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; give the name of a folder")
        for path in sorted(self.folder.glob("*.json")):
            entry = _read(path)
            if entry is not None and entry["work"] != self.work:
                raise ValueError(
                    f"{self.folder} has steps of other work ({path.name}), which differs in "
                    f"{', '.join(_differences(entry['work'], self.work))}. Go on with what it was "
                    "begun with, give another folder, or delete this one."
                )

    def _place(self, step: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
        step = _plain(dict(step))
        text = json.dumps([self.work, step], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        return step, self.folder / f"{name}.json"


def _differences(there: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """The keys that differ, with the values on both sides."""
    for key in sorted(there.keys() | here.keys()):
        values = [_short(work[key]) if key in work else "none" for work in (there, here)]
        if key not in there or key not in here or there[key] != here[key]:
            yield f"{key} (there {values[0]}, here {values[1]})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A dict as it is after it was written to JSON and read again."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _read(path: Path) -> dict[str, Any] | None:
    """What is in a file, if it is a record and whole."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        parts = [entry[part] for part in ("work", "step", "record")]
    except (KeyError, OSError, TypeError, ValueError):
        return None
    return entry if all(isinstance(part, dict) for part in parts) else None
