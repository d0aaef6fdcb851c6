"""Predict: thresholds, verdicts, pictures, and what becomes of images that cannot be used."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import get_args

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from cache.store import open_store
from pipeline.backbones.precision import ComputeDtype
from pipeline.backbones.stored import load_stored_layers
from pipeline.cli import app
from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.drawing.overlay import heatmap, overlay
from pipeline.prediction.inputs import find_images
from pipeline.prediction.pictures import output_names
from pipeline.prediction.predict import predict
from pipeline.scoring.score import score
from spg_core.errors import ArtifactError, ConfigError, DatasetError, StoreError
from tests.s3_server import s3_url  # noqa: F401 - the fixture


@pytest.fixture(scope="module")
def images(small_store) -> list[str]:
    """The images of the target in manifest order."""
    manifest = next((Path(small_store.url) / "tokens" / "target").rglob("manifest.parquet"))
    table = pq.read_table(manifest, columns=["image_path"])
    return [str(small_store.images / "target" / path) for path in table["image_path"].to_pylist()]


def judged(guides, paths, scoring=None, **config):
    return list(
        predict(guides, find_images(paths), scoring or ScoreConfig(), PredictConfig(**config))
    )


# --- scores ---------------------------------------------------------------------------------------


def test_predict_gives_the_scores_of_the_cached_images(small_store, images):
    scored = score(open_store(small_store.url), small_store.guides.id, "target", ScoreConfig())
    expected = pq.read_table(f"{scored.path}/images.parquet")["score"].to_numpy()

    predictions = judged(small_store.guides, images)

    assert [one.path for one in predictions] == images
    # both pass through float16 tokens; only the order of sums differs
    np.testing.assert_allclose([one.score for one in predictions], expected, atol=1e-5)


def test_batches_change_neither_order_nor_scores(small_store, images):
    whole = judged(small_store.guides, images[:7], batch_size=16)
    parts = judged(small_store.guides, images[:7], batch_size=3, decoders=1)

    assert [one.path for one in parts] == [one.path for one in whole] == images[:7]
    np.testing.assert_allclose(
        [one.score for one in parts], [one.score for one in whole], atol=1e-5
    )


def test_the_promise_about_batches_is_made_for_float32_alone():
    page = Path(__file__).resolve().parents[1] / "docs" / "predict.md"
    text = " ".join(page.read_text().split())

    promise = text.partition("1e-5 for batches of another size. ")[2].partition("Pass the same")[0]

    assert promise.startswith("That holds for float32; a GPU")
    for coarser in {*get_args(ComputeDtype)} - {"float32"}:
        assert coarser in promise


def test_tau_and_sigma_are_those_asked_for(small_store, images):
    (mean,) = judged(small_store.guides, images[:1], ScoreConfig(tau=float("inf"), sigma=0))
    (largest,) = judged(small_store.guides, images[:1], ScoreConfig(tau=0, sigma=0))

    assert mean.score < largest.score


# --- images that are not like the others ----------------------------------------------------------


@pytest.fixture
def odd(tmp_path):
    """One folder of images that no dataset holds, three of them of no use."""
    folder = tmp_path / "odd"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (61, 133, 3), np.uint8)
    ramp = np.linspace(0, 255, 200 * 50).reshape(50, 200).astype(np.uint8)
    Image.fromarray(noise).save(folder / "a-noise.png")
    Image.fromarray(ramp).save(folder / "b-grey.png")
    Image.fromarray(np.dstack([noise, noise[..., 0]])).save(folder / "c-alpha.png")
    Image.fromarray(noise[:1, :1]).save(folder / "d-one-pixel.png")
    Image.fromarray(noise).resize((3000, 40)).save(folder / "e-long.webp")
    Image.fromarray(noise).save(folder / "f-cut.jpg")
    cut = (folder / "f-cut.jpg").read_bytes()
    (folder / "f-cut.jpg").write_bytes(cut[: len(cut) // 2])
    (folder / "g-text.png").write_text("not an image")
    (folder / "h-empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("left out")
    return folder


def test_odd_images_are_judged_and_broken_ones_named(small_store, odd, tmp_path):
    out = tmp_path / "pictures"

    predictions = judged(small_store.guides, [str(odd)], out=str(out), batch_size=3)

    errors = {Path(one.path).name: one.error for one in predictions}
    assert list(errors) == sorted(path.name for path in odd.iterdir() if path.suffix != ".txt")
    assert all(errors[name] is None for name in list(errors)[:5])
    assert "f-cut.jpg: cannot be decoded" in errors["f-cut.jpg"]
    assert "g-text.png: cannot be decoded (not an image" in errors["g-text.png"]
    assert "h-empty.png: the file is empty" in errors["h-empty.png"]
    for one in predictions[:5]:
        assert 0 <= one.score <= 1
        with Image.open(one.path) as original, Image.open(one.overlay) as drawn:
            assert drawn.width >= original.width
            assert drawn.height > original.height
            assert drawn.mode == "RGB"
        with Image.open(one.heatmap) as drawn:
            assert drawn.size == (96, 96)
    assert all(one.score is one.heatmap is one.verdict is None for one in predictions[5:])


def test_the_command_goes_on_after_a_broken_image_and_exits_with_1(small_store, images, odd):
    arguments = ["predict", "--guides", small_store.guides.id, "--store", small_store.url]
    arguments += ["--threshold", "0.5", "--json", images[0]]

    some = CliRunner().invoke(app, [*arguments, str(odd / "g-text.png")])
    none = CliRunner().invoke(app, arguments)

    lines = [json.loads(line) for line in some.stdout.splitlines()]
    assert some.exit_code == 1
    assert [line["error"] is None for line in lines] == [True, False]
    assert lines[0].keys() == {
        "path", "score", "applicability", "threshold", "threshold_source", "verdict", "reason",
        "heatmap", "overlay", "error",
    }  # fmt: skip
    assert lines[0]["threshold_source"] == "given"
    assert none.exit_code == 0
    assert "1 image scored, 0 failed" in none.stderr
    assert re.search(r"[0-9.]+ images/s in \d+ s", none.stderr)


@pytest.mark.parametrize("what", ["gone.png", "nowhere/*.png"])
def test_what_is_not_there_is_refused_before_a_model_is_loaded(
    small_store, images, what, monkeypatch
):
    monkeypatch.setattr("pipeline.prediction.predict.load_model", None)

    with pytest.raises(DatasetError, match=f"^{re.escape(what)}: no "):
        judged(small_store.guides, [images[0], what])


def test_the_table_is_one_line_an_image(small_store, images, odd):
    arguments = ["predict", "--guides", small_store.guides.id, "--store", small_store.url]

    shown = CliRunner().invoke(
        app, [*arguments, images[0], str(odd / "h-empty.png"), "--threshold", "0"]
    )

    head, first, second = shown.stdout.splitlines()
    assert head.split() == ["score", "applies", "verdict", "image"]
    assert first.split()[1:] == ["-", "anomalous", images[0]]
    assert second.startswith("-       -        error      ")


# --- which images ---------------------------------------------------------------------------------


def test_files_folders_and_globs_are_listed_once_and_in_order(tmp_path):
    for name in ("b/2.png", "b/inner/1.JPG", "a/1.png", "a/1.png.heatmap.png", "a/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    listed = find_images([f"{tmp_path}/a/x.txt", f"{tmp_path}/b", f"{tmp_path}/**/*.png"])

    below = [str(Path(one.path).relative_to(tmp_path)) for one in listed]
    assert below == ["a/x.txt", "b/2.png", "b/inner/1.JPG", "a/1.png"]
    assert output_names(listed) == ["a/x", "b/2", "b/inner/1", "a/1"]
    assert find_images([f"{tmp_path}/a", str(tmp_path / "empty")])[1].error.endswith(
        "empty: no such file or folder"
    )


def test_what_is_no_file_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")

    listed = find_images(
        [f"{tmp_path}/pipe.png", "/dev/zero", f"{tmp_path}/loop.png", "n" * 300, "a\0b"]
    )

    assert [one.error.rpartition(": ")[2] for one in listed] == [
        "not a regular file",
        "not a regular file",
        "no such file or folder",
        "cannot be read (File name too long)",
        "no such file or folder",
    ]


def test_nothing_to_judge_is_told_before_a_model_is_loaded(small_store, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.prediction.predict.load_model", None)
    (tmp_path / "a\nb.png").write_bytes(b"x")

    (one,) = judged(small_store.guides, [str(tmp_path)])

    assert "unusable name" in one.error


def test_a_picture_that_is_not_read_is_an_error_line_and_not_left_out_in_silence(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    for name in ("b.HEIC", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")

    image, other = find_images([str(tmp_path)])

    assert (image.error, other.is_missing) == (None, False)
    assert other.error.endswith("b.HEIC: unread format, save it as PNG or JPEG")


def test_a_folder_without_images_is_an_error(tmp_path):
    (one,) = find_images([str(tmp_path)])

    assert "no image in this folder (.png" in one.error


def test_images_of_one_name_get_pictures_of_their_own(small_store, images, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(images[0], tmp_path / folder / "000.png")

    predictions = judged(
        small_store.guides, [f"{tmp_path}/a", f"{tmp_path}/b"], out=f"{tmp_path}/out"
    )

    written = {one.overlay for one in predictions}
    assert written == {f"{tmp_path}/out/{folder}/000.overlay.png" for folder in "ab"}
    assert all(Path(path).is_file() for path in written)


def test_an_input_is_never_replaced_by_a_picture(small_store, images, tmp_path):
    first, second = tmp_path / "x.png", tmp_path / "x.overlay.png"
    for path in (first, second):
        shutil.copy(images[0], path)
    link = tmp_path / "elsewhere.png"
    link.symlink_to(second)
    before = second.read_bytes()

    for other in (second, link):
        with pytest.raises(StoreError, match=r"x\.overlay\.png is "):
            judged(small_store.guides, [str(first), str(other)], out=str(tmp_path))

    assert second.read_bytes() == before
    assert set(tmp_path.iterdir()) == {link, first, second}


def test_a_name_too_long_for_its_pictures_costs_that_image_alone(small_store, images, tmp_path):
    names = ["a.png", "é" * 120 + ".png", "-b.png", "c\nd.png", os.fsdecode(b"e\xff.png")]
    for name in names:
        shutil.copy(images[0], tmp_path / name)

    found = judged(
        small_store.guides, [str(tmp_path / name) for name in names], out=str(tmp_path / "o")
    )

    assert [one.error is None for one in found] == [True, False, True, True, True]
    assert "its name is too long for .heatmap.png behind it" in found[1].error
    assert len(list((tmp_path / "o").iterdir())) == 2 * 4


def test_only_pictures_of_an_earlier_run_are_replaced(small_store, images, tmp_path):
    image, out = str(tmp_path / "x.png"), str(tmp_path)
    shutil.copy(images[0], image)
    (one,) = judged(small_store.guides, [image], out=out)
    before = Path(one.overlay).read_bytes()
    (again,) = judged(small_store.guides, [image], out=out)

    assert Path(again.overlay).read_bytes() == before
    with pytest.raises(StoreError, match="is an image to judge"):
        judged(small_store.guides, [image, one.overlay], out=out)
    Image.new("RGB", (3, 3)).save(one.overlay)
    theirs = Path(one.overlay).read_bytes()
    with pytest.raises(StoreError, match="was not written by this command"):
        judged(small_store.guides, [image], out=out)
    assert Path(one.overlay).read_bytes() == theirs


# --- pictures -------------------------------------------------------------------------------------


def test_a_heatmap_has_one_colour_scale_for_all_images():
    inferno = matplotlib.colormaps["inferno"]
    values = np.array([[0, 0.2, 0.4], [0.6, 0.8, 1]], np.float32)

    picture = heatmap(values)

    assert picture.size == (3, 2)
    assert np.asarray(picture).tolist() == [[0, 51, 102], [153, 204, 255]]
    colour = picture.convert("RGB").getpixel((1, 0))
    assert colour == tuple(inferno(51, bytes=True)[:3])


def test_an_overlay_keeps_the_photo_where_the_map_is_0_and_its_shape():
    photo = Image.fromarray(np.full((40, 90, 3), 200, np.uint8))
    values = np.zeros((16, 16), np.float32)
    values[:, 8:] = 1

    drawn = np.asarray(overlay(photo, values))

    hot = np.array(matplotlib.colormaps["inferno"](255, bytes=True)[:3], np.float64)
    assert drawn.shape == (40, 90, 3)
    assert (drawn[:, :40] == 200).all()
    # round(0.7 * 255) / 255 of the colour, the rest of the photo
    np.testing.assert_allclose(drawn[20, 85], 200 + (hot - 200) * 178 / 255, atol=1)


# --- the backbone ---------------------------------------------------------------------------------


def test_other_weights_than_the_guides_are_refused(small_store, tmp_path):
    spec = dataclasses.replace(
        load_stored_layers([detector_spec(small_store)], None, "cpu").spec,
        name="timm:test_vit",
        library="timm",
        weights_sha256="ab" * 32,
    )
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")

    with pytest.raises(ArtifactError, match=r"with weights abababababababab\.\.\.; give that file"):
        load_stored_layers([spec], str(other), "cpu")


def test_another_descriptor_than_the_guides_were_fitted_on_is_refused(small_store):
    spec = dataclasses.replace(detector_spec(small_store), d_model=7)

    with pytest.raises(ArtifactError, match="d_model is 7 in one and 160 in the other"):
        load_stored_layers([spec], None, "cpu")


def test_tokens_of_a_gpu_are_computed_in_float32_on_a_cpu(small_store, capsys):
    spec = dataclasses.replace(detector_spec(small_store), compute_dtype="bfloat16")

    backbone = load_stored_layers([spec], None, "cpu")

    assert backbone.spec.compute_dtype == "float32"
    assert "computing in float32 on cpu" in capsys.readouterr().err


def detector_spec(small_store):
    from pipeline.detection.load import make_detector

    return make_detector(small_store.guides, ScoreConfig()).spec


def test_impossible_options_are_refused(small_store, images, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")

    with pytest.raises(ConfigError, match="--batch-size is 0; it must be a whole number, 1 to"):
        judged(small_store.guides, images[:1], batch_size=0)
    with pytest.raises(ConfigError, match="out is a folder"):
        judged(small_store.guides, images[:1], out=str(file))


def test_guides_on_s3_judge_and_keep_their_threshold(small_store, images, s3_url):  # noqa: F811
    local, remote = open_store(small_store.url), open_store(s3_url)
    for kind in ("guides", "tokens/aux"):
        for entry in local.walk(kind):
            remote.put_new(entry.name, [local.get(entry.name)])
    options = ["--guides", small_store.guides.id, "--store", s3_url, "--json"]

    calibrated = CliRunner().invoke(app, ["calibrate", *options])
    shown = CliRunner().invoke(app, ["predict", *options, images[0]])

    (here,) = judged(small_store.guides, images[:1])
    line = json.loads(shown.stdout)
    assert calibrated.exit_code == shown.exit_code == 0
    assert line["score"] == here.score
    assert line["threshold"] == json.loads(calibrated.stdout)["threshold"]
