"""Print the lowest version of every direct dependency that pyproject.toml allows, for pip.

    python .ci/lowest.py            # jsonargparse[signatures]==4.40 …
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PINNED = {"torch"}
"""What constraints.txt says of these holds: older builds are not to be had everywhere."""

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    name, version = re.match(r"([\w.\[\]-]+)>=([\w.]+)", requirement).groups()  # type: ignore[union-attr]
    if name not in PINNED:
        print(f"{name}=={version}")
