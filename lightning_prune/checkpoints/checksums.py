"""The SHA-256 of every file that a saved model is made of, written and compared."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lightning_prune.checkpoints.names import CARD, CHECKSUMS, CONFIG, REPORT, weight_files
from lightning_prune.files import sha256, write_json

__all__ = ["check_checksums", "write_checksums"]

FREE = (CHECKSUMS, CARD, REPORT)
"""Not part of the model: people write on in them."""


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file in the folder that a model is made of."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    write_json(folder / CHECKSUMS, _digests([path for path in files if path.name not in FREE]))


def check_checksums(folder: Path, weights: bool = True) -> None:
    """Compare the folder's files with `checksums.json`, if it has one; others may have been added.

    Args:
        folder: a Hugging Face folder.
        weights: compare the safetensors too, which takes a while.

    Raises:
        ValueError: a file is not as it was saved or is gone, a file of weights or of code was not
            saved with the others, or `checksums.json` is damaged.
    """
    if not (folder / CHECKSUMS).is_file():
        return
    try:
        saved = dict(json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CHECKSUMS} is damaged ({error}). Save the model again.") from (
            error
        )
    if gone := [name for name in saved if not (folder / name).is_file()]:
        raise ValueError(
            f"{folder / gone[0]} is gone, which was saved with the others. Save or download the "
            f"folder again; if it was taken out on purpose, delete {CHECKSUMS}, or do "
            "not compare (verify=False; --no-verify of export and generate)."
        )
    code = (path.name for path in folder.glob("*.py"))
    names = dict.fromkeys([*saved, CONFIG, *code, *(path.name for path in weight_files(folder))])
    looked_at = [name for name in names if weights or not name.endswith(".safetensors")]
    digests = _digests([folder / name for name in looked_at])
    for name, digest in digests.items():
        if saved.get(name) != digest:
            raise ValueError(
                f"{folder / name} is not the file that was saved: its SHA-256 is {digest[:12]}…, "
                f"and {CHECKSUMS} has {str(saved.get(name))[:12]}…. Save or download it again; if "
                f"it was changed on purpose, delete {CHECKSUMS}, or do not compare "
                "(verify=False; --no-verify of export and generate)."
            )


def _digests(paths: list[Path]) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter's lock
        return dict(zip((path.name for path in paths), pool.map(sha256, paths), strict=True))
