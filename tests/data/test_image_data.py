"""Images from folders, IDX files, datasets and drawn ones; what cannot be used is refused early."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune import ImageData
from lightning_prune.data.images.preparation import Preparation
from lightning_prune.data.images.shapes import SHAPES, drawn
from lightning_prune.data.images.sources import read_images

KNOWN = {"cat": 0, "dog": 1}


def processor(image: Any, **_: Any) -> dict[str, torch.Tensor]:
    """Stands in for transformers'."""
    pixels = torch.from_numpy(np.array(image)).float() / 255
    return {"pixel_values": (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))[None]}


def prepared(
    channels: int = 3, known: dict[str, int] | None = None, classes: int = 2
) -> Preparation:
    return Preparation(processor, channels, KNOWN if known is None else known, classes)


def write(folder: Path, count: int, mode: str = "RGB", size: int = 6) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new(mode, (size, size), 20 * i if mode == "L" else (20 * i, 0, 9)).save(
            folder / f"{i}.png"
        )


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """A folder with a folder for each class, dogs first by the model's numbers."""
    write(tmp_path / "animals" / "dog", 12)
    write(tmp_path / "animals" / "cat", 8)
    return tmp_path / "animals"


def test_a_folder_of_classes_is_shared_out(animals: Path) -> None:
    """Each image once; validation and test are the same share; numbers are the model's."""
    data = ImageData(str(animals), held_out=0.25, batch_size=4, nsamples=6).attach(prepared())
    counts = {use: torch.zeros(2, dtype=torch.long) for use in ("train", "val", "test")}
    for use, count in counts.items():
        for batch in getattr(data, f"{use}_dataloader")():
            assert batch["pixel_values"].shape[1:] == (3, 6, 6)
            count += batch["labels"].bincount(minlength=2)
    assert (counts["train"] + counts["val"]).tolist() == [8, 12]
    assert counts["val"].sum() == 5
    assert torch.equal(counts["val"], counts["test"])
    assert data.described("validation").endswith("(25% of it): 5 images of 2 classes")
    calibration = list(data.calibration_dataloader())
    assert sum(len(batch["labels"]) for batch in calibration) == 6
    again = ImageData(str(animals), held_out=0.25, batch_size=4, nsamples=6).attach(prepared())
    torch.testing.assert_close(list(again.calibration_dataloader()), calibration)


def test_folders_of_splits_are_what_they_are_called(tmp_path: Path) -> None:
    """And where there is no validation, test stands in."""
    for split, count in (("train", 3), ("test", 2)):
        for name in KNOWN:
            write(tmp_path / split / name, count)
    parts = {split: read_images(str(tmp_path), split) for split in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [6, 4, 4]


def idx(path: Path, array: np.ndarray[Any, Any], magic: int) -> None:
    data = struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_idx_files_are_read(tmp_path: Path) -> None:
    """Compressed or not; classes can be chosen by their names."""
    images, labels = (
        np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4),
        np.array([2, 0, 1, 2, 0], np.uint8),
    )
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", images, 0x803)
    idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels, 0x801)
    data = ImageData(str(tmp_path), classes=["2", "0"], held_out=0.5, batch_size=9)
    data.attach(prepared(1, {"0": 0, "1": 1, "2": 2}, 3))
    batches = [next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))]
    found = {
        (int(p[0, 0, 0] * 255), int(label))
        for b in batches
        for p, label in zip(b["pixel_values"], b["labels"], strict=True)
    }
    assert found == {(0, 2), (16, 0), (48, 2), (64, 0)}
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
        read_images(str(tmp_path), "train")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_16_bits_are_not_cut_off(channels: int) -> None:
    """The same as with 8 bits; more bits than that have no white that is known."""
    grey_HW = np.arange(0, 256, 16, np.uint8).reshape(4, 4)
    deep = Image.fromarray(grey_HW.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    pixels = prepared(channels).pixels
    torch.testing.assert_close(pixels(deep), pixels(Image.fromarray(grey_HW)))
    for kind in (np.int32, np.float32):
        with pytest.raises(ValueError, match="32 bits .* save it with 8 or 16 bits"):
            pixels(Image.fromarray(grey_HW.astype(kind)))


def test_shapes_are_the_same_each_time_and_in_no_two_splits() -> None:
    """Grey bytes, as many of each class."""
    images = {split: drawn(split) for split in ("train", "validation", "test")}
    for pictures in images.values():
        assert pictures.classes == SHAPES
        assert torch.equal(pictures.targets[:6], torch.arange(6))
    arrays = [pictures.reads[3]() for pictures in images.values()]
    assert arrays[0].shape == (28, 28)
    assert arrays[0].dtype == np.uint8
    assert np.array_equal(arrays[0], drawn("train").reads[3]())
    assert not np.array_equal(arrays[0], arrays[1])


@pytest.mark.parametrize(
    ("names", "preparation", "message"),
    [
        (
            ["cat"],
            prepared(),
            r"has images of one class \(cat\), and there is nothing to tell apart",
        ),
        (
            ["cat", "cow", "dog"],
            prepared(),
            "has 3 classes, 'cow' among them.* tells 2 others apart",
        ),
        (
            ["cat", "dog"],
            prepared(1),
            r"an image has colours \(RGB\), and the model reads 1 channel",
        ),
        (
            ["cat", "dog"],
            prepared(4),
            r"the model reads 4 channels, and images have 1 \(grey\) or 3",
        ),
        (
            ["cat", "dog"],
            prepared(known={"cat": 0, "dog": 5}),
            "has the label 5, and the model's head",
        ),
    ],
)
def test_images_that_do_not_go_with_the_model_are_refused(
    tmp_path: Path, names: list[str], preparation: Preparation, message: str
) -> None:
    """In one sentence, when they are calibrated on or before."""
    for name in names:
        write(tmp_path / name, 4)
    data = ImageData(str(tmp_path), nsamples=4).attach(preparation)
    with pytest.raises(ValueError, match=message) as caught:
        list(data.calibration_dataloader())
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_image_is_told_by_its_name(animals: Path) -> None:
    """A file that is cut short behind its header, too."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(animals / "cat" / "3.jpg")
    whole = (animals / "cat" / "3.jpg").read_bytes()
    (animals / "cat" / "3.jpg").write_bytes(whole[:-99])
    (animals / "cat" / "3.png").unlink()
    data = ImageData(str(animals), nsamples=18).attach(prepared())
    with pytest.raises(ValueError, match=r"cat/3\.jpg cannot be read as an image"):
        list(data.calibration_dataloader())


def test_damaged_files_are_noticed_when_images_are_listed(animals: Path) -> None:
    """All of a split by their headers, those that are trained on too; counted, the first named."""
    for i in range(4):
        (animals / "dog" / f"{i}.png").write_bytes(b"no image" * (i % 2))
    data = ImageData(str(animals), validation="builtin", held_out=0.01).attach(prepared())
    message = r"^4 of 20 files of .* cannot be read as images \(.*, …\)\. Take"
    with pytest.raises(ValueError, match=message) as told:
        data.setup("fit")
    assert str(told.value).count(".png") == 3
    assert "\n" not in str(told.value)


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    """With what there could be."""
    with pytest.raises(
        FileNotFoundError, match="no folder of images './builtin/'.*'builtin' needs none"
    ):
        read_images("./builtin/", "train")
    with pytest.raises(ValueError, match="has neither IDX files nor folders of images"):
        read_images(str(tmp_path), "train")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"cat has no images \(\.bmp, "):
        read_images(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nsamples": 0}, "nsamples=0; at least 1"),
        ({"num_workers": -1}, "num_workers=-1; at least 0"),
        ({"held_out": 1.5}, "held_out=1.5; a share between 0 and 1"),
        ({"classes": "cat"}, r"it is a list of texts or None: write \['cat'\]"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    """When the object is made."""
    with pytest.raises(ValueError, match=message):
        ImageData("builtin", **settings)


def test_more_images_than_there_are_cannot_be_calibrated_on(animals: Path) -> None:
    """And a class that is not there cannot be chosen."""
    data = ImageData(str(animals), nsamples=19).attach(prepared())
    with pytest.raises(ValueError, match="has 18 images to calibrate on, and nsamples=19"):
        data.calibration_dataloader()
    data = ImageData(str(animals), classes=["cat", "cow"]).attach(prepared())
    with pytest.raises(ValueError, match="has no class 'cow'; its classes are cat, dog"):
        data.train_dataloader()
    data = ImageData(str(animals), classes=["cat", "cat"]).attach(prepared())
    with pytest.raises(ValueError, match="classes names 'cat' more than once"):
        data.train_dataloader()


def test_nobody_has_said_how_images_are_prepared() -> None:
    """As where there is no model."""
    with pytest.raises(ValueError, match="give the Trainer an ImageClassifier, or call attach"):
        ImageData("builtin").train_dataloader()
