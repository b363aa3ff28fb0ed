"""Commands on image classifiers, as a user types them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import (
    GlobalStandardised,
    ImageClassifier,
    MagnitudeSP,
    Wanda,
    load,
    prune,
    save,
)
from lightning_prune.cli import main
from lightning_prune.data.images.shapes import SHAPES
from tests.image_models import image_model
from tests.models.test_image_classifier import CONFIG

pytest.importorskip("PIL", reason="images take the extra vision")
pytest.importorskip("transformers", minversion="5.23")

LABELS = dict(enumerate(SHAPES))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dense classifier of shapes, one with fewer neurons, and one whose blocks differ."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    module = ImageClassifier(config=CONFIG | {"id2label": LABELS})
    module.load()
    made = {"dense": save(module.base, root / "dense", processor=module.processor)}
    for name, method in {
        "cut": MagnitudeSP(ratio=0.25, attention=False, repair=None),
        "uneven": MagnitudeSP(ratio=0.25, allocation=GlobalStandardised(), repair=None),
    }.items():
        model = load(made["dense"])
        plan = prune(model, method)
        made[name] = save(model, root / name, plan, processor=module.processor)
    return made


IMAGES = (
    *("--data", "ImageData", "--data.nsamples=8", "--data.batch_size=8"),
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
)


def classifier(folder: Path) -> tuple[str, ...]:
    return ("--model", "ImageClassifier", f"--model.path={folder}")


def test_methods_are_compared_by_accuracy(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command: dense, and every method at every sparsity; again, it is all known."""
    monkeypatch.chdir(tmp_path)
    more = ("--methods=[Magnitude,Wanda]", "--sparsities=[0.5]", "--windows=24")
    arguments = ["sweep", *classifier(folders["dense"]), *IMAGES, *more]
    main([*arguments, "--trainer.default_root_dir=run"])
    with open(tmp_path / "run" / "sweep.csv") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"dense", "Magnitude", "Wanda"}
    assert "perplexity" not in rows["dense"]
    from lightning_prune import ImageData
    from lightning_prune.evaluation import classify

    data = ImageData("builtin", nsamples=8, batch_size=8)
    module = ImageClassifier(str(folders["dense"]))
    module.load()
    data.attach(module.preparation)
    prune(module.base, Wanda(sparsity=0.5), data.calibration_dataloader())
    validation = [batch for _, batch in zip(range(3), data.val_dataloader(), strict=False)]
    assert float(rows["Wanda"]["accuracy"]) == classify(module.base, validation).accuracy
    before = (tmp_path / "run" / "sweep.csv").read_text()
    main([*arguments, "--trainer.default_root_dir=run"])
    assert (tmp_path / "run" / "sweep.csv").read_text() == before


def test_a_saved_classifier_is_validated(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of what its accuracy is stands below."""
    monkeypatch.chdir(tmp_path)
    arguments = [
        "validate",
        *classifier(folders["uneven"]),
        *IMAGES,
        "--trainer.limit_val_batches=2",
    ]
    main([*arguments, "--trainer.default_root_dir=run"])
    said = capsys.readouterr().out
    assert "val_top5" in said
    assert "val_accuracy is of builtin: 16 images of 6 classes" in said


def test_two_classifiers_are_compared(
    folders: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    """By structure, and by accuracy on the same images."""
    out = ["--out", str(tmp_path)]
    main(["compare", str(folders["dense"]), str(folders["cut"]), "--images", "builtin", *out])
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["accuracy"].keys() == {"a", "b"}
    assert "accuracy on 1,000 images of 'builtin' (test)" in capsys.readouterr().out
    bare = tmp_path / "bare"  # saved without its image processor
    save(load(folders["dense"]), bare)
    with pytest.warns(UserWarning, match="bare' has no image processor"):
        main(["compare", str(folders["dense"]), str(bare), "--images", "builtin", *out])
    same = json.loads((tmp_path / "compare.json").read_text())
    assert same["accuracy"]["a"] == same["accuracy"]["b"]
    assert same["settings"]["differing"] == 0
    with pytest.raises(SystemExit):
        main(
            [
                "compare",
                *map(str, (folders["dense"], folders["cut"])),
                "--images=builtin",
                "--text=builtin",
            ]
        )
    assert "--images for image classifiers" in capsys.readouterr().err


def test_classifiers_are_measured(folders: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    """Size, and images a second; texts cannot judge them."""
    names = [str(folders[name]) for name in ("dense", "cut")]
    main(["measure", *names, "--batch_sizes", "1", "4", "--runs=1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "measurement.json").read_text())["models"]
    assert [forward["batch_size"] for forward in found["cut"]["forwards"]] == [1, 4]
    assert found["cut"]["size"]["parameters"] < found["dense"]["size"]["parameters"]
    assert "images/s" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["evaluate", names[0], "--texts", "builtin"])
    assert "dense is no language model but for a ImageClassifier" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dense", "uneven"])
def test_onnx_files_compute_the_same(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    """In onnxruntime, for another number of images than it was traced with."""
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    main(["export", str(folders[name]), "--to", "onnx", "--out", str(file)])
    pixels = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    with torch.no_grad():
        expected = load(folders[name])(pixel_values=pixels).logits
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == [file]


def test_onnx_files_take_the_pixels_that_the_processor_makes(tmp_path: Path) -> None:
    """Not those of the config, which for DINOv2 are those that it was trained on."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = image_model("dinov2")
    folder = save(model, tmp_path / "model")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    main(["export", str(folder), "--to", "onnx", "--out", str(tmp_path / "x.onnx")])
    pixels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    (found,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
    module = ImageClassifier(str(folder))
    module.load()
    assert module.random_images(2).shape == (2, 3, 8, 8)


def test_a_language_model_has_no_onnx_file(model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    """With where else it can go."""
    pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit):
        main(["export", str(model_folder), "--to=onnx", "--out", str(tmp_path / "x.onnx")])
    assert "--to onnx is for image classifiers" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes-wanda.yaml", "shapes-structured.yaml"])
def test_recipes_of_images_run(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """On a smaller model, for two steps."""
    monkeypatch.chdir(tmp_path)
    command = "prune" if name == "shapes-wanda.yaml" else "fit"
    steps = ["--trainer.max_steps=2"] if command == "fit" else []
    model = [f"--model.init_args.path={folders['dense']}"]
    main([command, "--config", name, *model, *steps, "--trainer.default_root_dir=run"])
    stages = json.loads((tmp_path / "run" / "report.json").read_text())["stages"]
    assert "pruned" in stages
    assert ("recovered" in stages) is (command == "fit")
