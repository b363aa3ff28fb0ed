"""Prints the lowest version that pyproject.toml allows of every direct dependency, as pip takes it.

    python .ci/lowest.py evaluation export

torch is left out: another one than the pinned one would bring gigabytes of libraries for the GPU.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [project["optional-dependencies"][name] for name in sys.argv[1:]]
for requirement in sum(extras, project["dependencies"]):
    match = re.match(r"([\w-]+)(\[\w+\])?>=([\w.]+)", requirement)
    if match is None:
        sys.exit(f"{requirement!r} in pyproject.toml says no lowest version")
    name, extra, lowest = match.groups()
    if name != "torch":
        print(f"{name}{extra or ''}=={lowest}")
