"""Images from datasets, as they are saved on the disk."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from lightning_prune import ImageData
from lightning_prune.data.images.sources import read_images
from tests.data.test_image_data import prepared


def test_a_saved_dataset_is_read(tmp_path: Path) -> None:
    """By its columns and its names of classes."""
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["dog", "cat"])}
    )
    rows = {"picture": [Image.new("RGB", (4, 4))] * 4, "kind": [0, 1, 1, 0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    data = ImageData(
        str(tmp_path / "saved"),
        image_column="picture",
        label_column="kind",
        held_out=0.5,
        batch_size=4,
    ).attach(prepared())
    labels = [
        *next(iter(data.train_dataloader()))["labels"],
        *next(iter(data.val_dataloader()))["labels"],
    ]
    assert sorted(map(int, labels)) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="has no column 'image'; it has picture, kind"):
        read_images(str(tmp_path / "saved"), "train")


PNG = io.BytesIO()
Image.new("L", (4, 4), 99).save(PNG, "png")


@pytest.mark.parametrize(
    "kept", [PNG.getvalue(), {"bytes": PNG.getvalue(), "path": None}], ids=["bytes", "file"]
)
def test_a_dataset_that_keeps_files_as_bytes_is_read(tmp_path: Path, kept: Any) -> None:
    """As parquet files have them that nobody has said are images."""
    rows = {"image": [kept] * 8, "label": ["cat", "dog"] * 4}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path))
    data = ImageData(str(tmp_path), nsamples=4, held_out=0.5).attach(prepared(1))
    assert (next(iter(data.calibration_dataloader()))["pixel_values"] == 99 / 255).all()


NAMES = datasets.ClassLabel(names=["cat", "dog"])


@pytest.mark.parametrize(
    ("images", "labels", "feature", "message"),
    [
        ([PNG.getvalue()], [-1, 0, 1], NAMES, "1 of 3 images of .* have no class: 'label' is None"),
        ([PNG.getvalue()], [0, None, None], NAMES, "2 of 3 images of .* have no class"),
        ([PNG.getvalue()], ["cat", None, "dog"], None, "1 of 3 images of .* have no class"),
        ([PNG.getvalue()], [[0], [1], [0, 1]], None, "'label' of .* and one class for each image"),
        ([[[1, 2], [3, 4]]], [0, 1, 0], NAMES, "'image' of .* and images are needed"),
        ([None, PNG.getvalue()], [0, 1, 0], NAMES, "image 0 of the dataset is missing"),
        (["nowhere.png"], [0, 1, 0], NAMES, "image 0 of the dataset cannot be read"),
    ],
)
def test_rows_without_an_image_or_a_class_are_refused(
    tmp_path: Path, images: list[Any], labels: list[Any], feature: Any, message: str
) -> None:
    """-1 is no class, least of all the last one."""
    rows = {"image": (images * 3)[:3], "label": labels}
    table = datasets.Dataset.from_dict(rows)
    table = table if feature is None else table.cast_column("label", feature)
    table.save_to_disk(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        read_images(str(tmp_path), "train", held_out=0.5).image(0)
