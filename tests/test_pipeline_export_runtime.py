"""What an export writes beside the file judges images with numpy, pillow and onnxruntime alone."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import venv
from dataclasses import replace
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.store import open_store
from manifests.images import open_image
from pipeline.artifacts import save_artifact
from pipeline.backbones.load import load_backbone
from pipeline.backbones.preprocess import squash
from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.prediction.export import export
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from spg_core.errors import StoreError
from tests.artifact_samples import guides_document, guides_tensors

pytest.importorskip("onnxscript", reason="the `export` extra is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the `export` extra is not installed")

SIDE = 96
RUNTIME_ALONE = ("numpy", "pillow", "onnxruntime")
# what onnxruntime itself imports, and no more
ITS_OWN = (
    "flatbuffers",
    "protobuf",
    "packaging",
    "coloredlogs",
    "humanfriendly",
    "sympy",
    "mpmath",
)


def save_guides(folder):
    """Save random guides for a small ViT with random weights; give them and the weights file."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = folder / "weights.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
    spec = load_backbone("timm:test_vit", image_size=SIDE, weights=weights).spec
    document = guides_document("guides", spec)
    tensors = guides_tensors(d_model=spec.d_model)
    return save_artifact(open_store(folder), document, tensors), str(weights)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    guides, weights = save_guides(folder)
    return guides, weights, export(guides, str(folder / "line 3.onnx"), ScoreConfig(), [weights])


def load(path):
    """Import a written module from where it lies."""
    described = importlib.util.spec_from_file_location("spg_detector_written", path)
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def photo(kind: str) -> Image.Image:
    """Make a photo, larger than the model's input, in one of the forms that cameras write."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize((210, 130))
    return picture if kind == "turned" else picture.convert(kind)


def test_the_module_alone_gives_the_scores_of_predict_in_an_environment_that_has_only_its_three(
    made, tmp_path
):
    guides, weights, exported = made
    for kind in ("RGB", "L", "P", "RGBA", "1"):
        photo(kind).save(tmp_path / f"{kind}.png")
    photo("CMYK").save(tmp_path / "CMYK.jpg", quality=95)
    paths = sorted(map(str, tmp_path.glob("*.*")))
    python = bare_environment(tmp_path / "venv")

    for absent in ("torch", "spg_core", "msgspec", "scipy"):
        asked = [python, "-I", "-c", f"import {absent}"]
        assert b"ModuleNotFoundError" in subprocess.run(asked, capture_output=True).stderr
    ran = subprocess.run(
        [python, "-I", exported.runtime, exported.path, *paths], capture_output=True, text=True
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    scores = [float(line.split("\t")[0]) for line in ran.stdout.splitlines()]
    config = PredictConfig(weights=(weights,))
    theirs = predict(guides, find_images(paths), ScoreConfig(), config)
    # predict passes tokens through the float16 of a cache, and four decimals are printed
    np.testing.assert_allclose(scores, [one.score for one in theirs], atol=1e-3)


def bare_environment(folder):
    """Make a venv that has the three packages, what these import, and nothing else."""
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for package in (*RUNTIME_ALONE, *ITS_OWN):
        try:
            listed = files(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in listed or () if file.parts[0] != ".."}:
            inside = Path(str(listed[0].locate()))
            source = inside.parents[len(listed[0].parts) - 1] / top
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


@pytest.mark.parametrize("values", ["8-bit", "float"])
@pytest.mark.parametrize("size", [(210, 130), (40, 30), (2000, 37)])
def test_its_input_is_ours(made, size, values):
    module = load(made[2].runtime)
    backbone = load_backbone("timm:test_vit", image_size=SIDE, weights=Path(made[1]))
    spec = replace(backbone.spec, resize_values=values)
    detector = module.Detector.from_onnx(made[2].path)
    detector.spec["resize_values"] = values
    picture = photo("RGB").resize(size)

    prepared = detector.prepare(picture)

    ours = squash(picture, spec).astype(np.float64) / (255 if values == "8-bit" else 1)
    np.testing.assert_allclose(prepared, ours.transpose(2, 0, 1), atol=2e-6)
    assert prepared.dtype == np.float32


@pytest.mark.parametrize("exif", [True, False])
def test_a_turned_photo_is_turned_where_the_backbone_turns_it(made, tmp_path, exif):
    module = load(made[2].runtime)
    detector = module.Detector.from_onnx(made[2].path)
    detector.spec["exif"] = exif
    tag = Image.Exif()
    tag[0x0112] = 6
    photo("turned").save(tmp_path / "turned.png", exif=tag)

    prepared = detector.prepare(tmp_path / "turned.png")

    size = (SIDE, SIDE)
    ours = open_image(tmp_path / "turned.png", exif=exif).resize(size, Image.Resampling.BICUBIC)
    np.testing.assert_allclose(prepared * 255, np.asarray(ours).transpose(2, 0, 1), atol=1e-4)


def test_what_cannot_be_judged_is_named(made, tmp_path):
    module = load(made[2].runtime)
    detector = module.Detector.from_onnx(made[2].path)
    Image.fromarray(np.zeros((5, 5), np.uint16)).save(tmp_path / "deep.png")
    whole = tmp_path / "whole.png"
    photo("RGB").save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("1", ((1 << 20) + 1, 2)).save(tmp_path / "strip.png")

    for name in ("deep.png", "cut.png", "text.png", "missing.png", "pipe.png", "strip.png"):
        with pytest.raises(module.BadImage, match=name):
            detector.predict(tmp_path / name)
    assert module.main([made[2].path, str(whole), str(tmp_path / "cut.png")]) == 1
    assert module.main([made[2].path]) == 2


def test_the_module_says_in_a_line_that_a_file_is_no_detector(made, tmp_path, capsys):
    module = load(made[2].runtime)
    (tmp_path / "text.onnx").write_text("no graph")

    for name in ("missing.onnx", "text.onnx"):
        assert module.main([str(tmp_path / name), "photo.png"]) == 2
        assert f"{name} is not a detector: " in capsys.readouterr().err


def test_a_batch_is_its_images_and_the_threshold_decides(made, tmp_path):
    module = load(made[2].runtime)
    detector = module.Detector.from_onnx(made[2].path)
    pictures = [photo(kind) for kind in ("RGB", "L")]

    together = detector.predict_batch(pictures)

    assert detector.predict_batch([]) == []
    assert together[0].map.shape == (SIDE, SIDE)
    assert [one.verdict for one in together] == [None, None]
    for picture, one in zip(pictures, together, strict=True):
        assert detector.predict(picture).score == pytest.approx(one.score, abs=1e-6)
    detector.threshold = together[0].score
    assert detector.predict_batch(pictures[:1])[0].verdict == "anomalous"
    detector.threshold = together[0].score + 1e-3
    assert detector.predict_batch(pictures[:1])[0].verdict == "normal"


def test_another_onnx_file_is_refused(made, tmp_path):
    onnx = pytest.importorskip("onnx")
    module = load(made[2].runtime)
    model = onnx.load(made[2].path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")

    with pytest.raises(ValueError, match="not written by `spg-pipe export`"):
        module.Detector.from_onnx(tmp_path / "other.onnx")


def test_a_module_of_somebody_else_is_never_replaced(made, tmp_path):
    guides, weights, _ = made
    (tmp_path / "spg_detector.py").write_text("print('mine')\n")

    with pytest.raises(StoreError, match=r"spg_detector\.py is there and was not written by this"):
        export(guides, str(tmp_path / "a.onnx"), ScoreConfig(), [weights])

    assert [path.name for path in tmp_path.iterdir()] == ["spg_detector.py"]


def test_openvino_gives_the_same_in_float32(made):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    pixels = np.random.default_rng(0).random((2, 3, SIDE, SIDE), np.float32)
    session = onnxruntime.InferenceSession(made[2].path, providers=["CPUExecutionProvider"])
    # on processors with AMX it takes bfloat16 unless told otherwise, 0.01 off
    exact = {"INFERENCE_PRECISION_HINT": "f32"}

    found = openvino.Core().compile_model(made[2].path, "CPU", exact)({"pixels": pixels})

    maps, scores = session.run(["map", "score"], {"pixels": pixels})
    np.testing.assert_allclose(found["map"], maps, atol=1e-4)
    np.testing.assert_allclose(found["score"], scores, atol=1e-4)
