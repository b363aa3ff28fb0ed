"""Where images come from: folders of classes, IDX files, datasets, and images that are drawn."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from lightning_prune.checks import meant
from lightning_prune.data.images.pictures import DAMAGED, ImageFile, Pictures
from lightning_prune.data.images.shapes import drawn
from lightning_prune.data.sources import SPLIT_OF_WORD

__all__ = ["read_images"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
IDX = re.compile(r"(\w+)-images[-.]idx3-ubyte(\.gz)?")
IDX_IMAGES, IDX_LABELS = 0x803, 0x801
"""What the first four bytes of IDX files say: bytes, on three axes and on one."""
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")

Parts = Mapping[str, Callable[[], Pictures]]
"""What there is, by split ("" where there are none), read when it is asked for."""


def read_images(
    source: str,
    split: str,
    *,
    image_column: str = "image",
    label_column: str = "label",
    held_out: float = 0.1,
) -> Pictures:
    """The images of one split of a source.

    Validation and test stand in for each other where a source has one of them; where it has
    neither, a share of the training images that is drawn at random stands in for both.

    Args:
        source: "builtin" (drawn), a local folder, or the name of a dataset on the hub.
        split: "train", "validation" or "test".
        image_column: of a dataset, the column that holds the images.
        label_column: of a dataset, the column that holds the classes.
        held_out: that share.

    Raises:
        FileNotFoundError: there is no such folder, or the hub did not give the dataset.
        ValueError: the source has no such split or column, or holds no images.
    """
    parts = _parts(source, image_column, label_column)
    other = {"validation": "test", "test": "validation"}.get(split, split)
    for name in (split, other):
        if name in parts:
            return parts[name]()
    whole = "train" if "train" in parts else ""
    if whole not in parts:
        raise ValueError(f"{source!r} has no {split} images, but only {', '.join(parts)}")
    training, out = parts[whole]().shared(held_out)
    pictures = training if split == "train" else out
    if not len(pictures):
        raise ValueError(f"{source!r} has too few images to hold out {held_out:.0%} of them")
    return pictures


def _parts(source: str, image_column: str, label_column: str) -> Parts:
    path = Path(source).expanduser()
    if source == "builtin":
        return {split: partial(drawn, split) for split in ("train", "validation", "test")}
    if not path.exists():
        if HUB_NAME.fullmatch(source):
            return _of_dataset(_hub(source), source, image_column, label_column)
        raise FileNotFoundError(f"there is no folder of images {source!r}{_names(source)}")
    if not path.is_dir():
        raise ValueError(f"{source!r} is a file; give a folder of images{_names(source)}")
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        table = datasets.load_from_disk(str(path))
        return _of_dataset(table, source, image_column, label_column)
    if found := sorted(match[0] for file in path.iterdir() if (match := IDX.match(file.name))):
        return _of_idx(path, found)
    return _of_folder(path)


def _names(source: str) -> str:
    return f"; 'builtin' needs none{meant(source, ['builtin'])}"


# --- folders with a folder for each class ---


def _of_folder(path: Path) -> Parts:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if not folders:
        raise ValueError(
            f"{path} has neither IDX files nor folders of images: give a folder that has one for "
            "each class, or one for train, validation and test with such folders in it"
        )
    splits = {SPLIT_OF_WORD[f.name.lower()]: f for f in folders if f.name.lower() in SPLIT_OF_WORD}
    if len(splits) < len(folders):  # a class may be called "test"
        return {"": partial(_classes, path)}
    return {split: partial(_classes, folder) for split, folder in splits.items()}


def _classes(folder: Path) -> Pictures:
    names = sorted(sub.name for sub in folder.iterdir() if sub.is_dir())
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        mine = sorted(f for f in (folder / name).rglob("*") if f.suffix.lower() in SUFFIXES)
        if not mine:
            raise ValueError(
                f"{folder / name} has no images ({', '.join(SUFFIXES)}); take the folder away, or "
                "put those of its class there"
            )
        files += mine
        labels += [label] * len(mine)
    return Pictures([ImageFile(file) for file in files], labels, tuple(names))


# --- IDX files, as MNIST's are ---


def _of_idx(folder: Path, names: Sequence[str]) -> Parts:
    parts = {}
    for name in names:
        match = IDX.match(name)
        assert match is not None
        split = {"t10k": "test"}.get(match[1], SPLIT_OF_WORD.get(match[1].lower(), match[1]))
        parts[split] = partial(_idx, folder / name)
    return parts if "train" in parts else {"": parts.popitem()[1]}


def _idx(path: Path) -> Pictures:
    labelled = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if not labelled.is_file():
        raise ValueError(f"{path} has images, and their labels, {labelled.name}, are not there")
    images_NHW, labels_N = _array(path, IDX_IMAGES), _array(labelled, IDX_LABELS)
    if len(images_NHW) != len(labels_N):
        raise ValueError(f"{path} has {len(images_NHW)} images, and {len(labels_N)} labels")
    classes = tuple(str(i) for i in range(int(labels_N.max()) + 1))
    return Pictures([partial(_at, images_NHW, i) for i in range(len(labels_N))], labels_N, classes)


def _at(images_NHW: Any, index: int) -> Any:
    return images_NHW[index]


def _array(path: Path, magic: int) -> Any:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        axes = magic & 0xFF
        header = np.frombuffer(data[: 4 * (axes + 1)], ">i4")
        if len(header) < axes + 1 or header[0] != magic:
            raise ValueError(f"its first bytes are not those of an IDX file of {axes} axes")
        return np.frombuffer(data, np.uint8, offset=4 * (axes + 1)).reshape(header[1:])
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


# --- datasets ---


def _hub(name: str) -> Any:
    try:
        return datasets.load_dataset(name)
    except Exception as error:
        # The hub's client raises dozens of types; all mean that the data did not come.
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"no images from {name!r}: it is no local folder, and the hub did not give it "
            f"({type(error).__name__}: {reason}){_names(name)}"
        ) from error


def _of_dataset(table: Any, source: str, image_column: str, label_column: str) -> Parts:
    tables = table if isinstance(table, datasets.DatasetDict) else {"": table}
    parts = {SPLIT_OF_WORD.get(name.lower(), name): part for name, part in tables.items()}
    how = source, image_column, label_column
    return {name: partial(_dataset, part, *how) for name, part in parts.items()}


def _dataset(table: Any, source: str, image_column: str, label_column: str) -> Pictures:
    for column in (image_column, label_column):
        if column not in table.column_names:
            raise ValueError(
                f"{source!r} has no column {column!r}; it has {', '.join(table.column_names)}. "
                "Name them with image_column and label_column."
            )
    labels, names = _labels(table, source, label_column)
    table = _as_images(table, source, image_column)
    reads = [partial(_cell, table, image_column, i) for i in range(len(labels))]
    return Pictures(reads, labels, names)


def _labels(table: Any, source: str, column: str) -> tuple[Sequence[int], tuple[str, ...]]:
    labels, feature = table[column][:], table.features[column]
    if not isinstance(feature, (datasets.ClassLabel, datasets.Value)):
        raise ValueError(
            f"{column!r} of {source!r} holds {feature}, and one class for each image is needed. "
            "Name another column with label_column."
        )
    named = isinstance(feature, datasets.ClassLabel)
    # -1 is what datasets on the hub write where a class is kept back.
    if bare := sum(label is None or (named and label < 0) for label in labels):
        raise ValueError(
            f"{bare:,} of {len(labels):,} images of {source!r} have no class: {column!r} is None "
            "or -1 there. Take them away, or name another split or column."
        )
    if named:
        return labels, tuple(feature.names)
    values = sorted(set(labels))
    return [values.index(label) for label in labels], tuple(map(str, values))


def _as_images(table: Any, source: str, column: str) -> Any:
    """The table with a column of images, also where it holds files as bytes or by their paths."""
    feature = table.features[column]
    if isinstance(feature, datasets.Image):
        return table
    files = isinstance(feature, Mapping) and set(feature) == {"bytes", "path"}
    if not files and getattr(feature, "dtype", "") not in ("binary", "string"):
        raise ValueError(
            f"{column!r} of {source!r} holds {feature}, and images are needed: image files as "
            "they are, their bytes, or their paths. Name another column with image_column."
        )
    return table.cast_column(column, datasets.Image())


def _cell(table: Any, column: str, index: int) -> Any:
    try:
        image = table[index][column]
    except DAMAGED as error:
        raise ValueError(f"image {index} of the dataset cannot be read: {error}") from error
    if image is None:
        raise ValueError(f"image {index} of the dataset is missing: {column!r} is None there")
    return image
