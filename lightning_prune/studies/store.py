"""Results of pruning in a folder, so that what is done is not done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_prune.files import write_json
from lightning_prune.report.grid import Cell

__all__ = ["Store"]


class Store:
    """Results in a folder, one file each, found again by all that they depend on.

    Args:
        folder: where they are kept; None: nowhere.
        common: what all of them depend on, as JSON can say it.
    """

    def __init__(self, folder: Path | None, common: Mapping[str, Any]) -> None:
        self._folder, self._common = folder, common

    def get(self, call: str) -> Cell | None:
        """The result of a method's call, if it is there; a damaged file is none."""
        if self._folder is None:
            return None
        identity, path = self._place(self._folder, call)
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["identity"] != identity:
                return None
            cell = Cell(**saved["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Cell(**asdict(cell) | {"perplexity": float(cell.perplexity or "nan")})

    def put(self, call: str, cell: Cell) -> None:
        """Keep a result."""
        if self._folder is not None:
            identity, path = self._place(self._folder, call)
            result = asdict(cell) | {"perplexity": str(cell.perplexity)}  # JSON has no inf
            write_json(path, {"identity": identity, "result": result})

    def _place(self, folder: Path, call: str) -> tuple[dict[str, Any], Path]:
        identity = {"call": call, **self._common}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return identity, folder / f"{digest[:16]}.json"
