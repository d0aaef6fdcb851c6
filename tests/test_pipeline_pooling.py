"""Image scores by other poolings than the maximum, through every stage that makes one; and what is
said where they rank worse than chance."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import zarr
from typer.testing import CliRunner

from cache.store import open_store
from pipeline.artifacts import load_artifact, save_artifact
from pipeline.calibration.calibrate import calibrate
from pipeline.cli import app
from pipeline.configs import CalibrateConfig, CalibrateSource, PredictConfig, ScoreConfig
from pipeline.inputs import open_dataset
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.prediction.threshold import load_threshold
from pipeline.scoring.chance import few_of_each
from pipeline.scoring.score import score
from tests.small_store import SmallStore

TOP = ScoreConfig(pool="top:0.05")


@pytest.fixture
def own(small_store, tmp_path) -> SmallStore:
    """The small store in a place of its own."""
    ignore = shutil.ignore_patterns("scores")
    url = str(shutil.copytree(small_store.url, tmp_path / "store", ignore=ignore))
    guides = load_artifact(open_store(url), "guides", small_store.guides.id)
    return SmallStore(small_store.images, url, small_store.sae, guides)


def said(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_share_of_the_pixels_is_pooled_from_the_same_maps(own):
    store = open_store(own.url)

    usual = score(store, own.guides.id, "target", ScoreConfig())
    made = score(store, own.guides.id, "target", TOP, save_maps=True)

    maps = np.asarray(zarr.open_array(f"{made.path}/maps.zarr", mode="r")[:])
    largest = np.sort(maps.reshape(len(maps), -1))[:, ::-1][:, : int(96 * 96 * 0.05)]
    scores = pd.read_parquet(f"{made.path}/images.parquet")["score"]
    np.testing.assert_allclose(scores, largest.mean(1), atol=1e-6)
    assert made.id != usual.id
    assert made.document.config.pool == "top:0.05"
    assert made.document.mean.pixel_aupro == usual.document.mean.pixel_aupro


def test_the_maximum_by_its_name_is_the_scores_that_are_there(own):
    store = open_store(own.url)

    by_default = score(store, own.guides.id, "target", ScoreConfig())
    by_name = score(store, own.guides.id, "target", ScoreConfig(pool="max"))

    assert by_name.id == by_default.id


@pytest.mark.parametrize("pool", ["top:0.05", "patches:0.1"])
def test_a_threshold_is_for_one_pooling_and_predict_and_score_agree(own, pool):
    scoring = ScoreConfig(pool=pool)
    store = open_store(own.url)
    made = score(store, own.guides.id, "target", scoring)
    table = pd.read_parquet(f"{made.path}/images.parquet")
    image = str(own.images / "target" / table["image_path"][0])

    source = CalibrateSource(guides=own.guides.id)
    calibrate(store, own.guides, scoring, source, CalibrateConfig())
    (same,) = predict(own.guides, find_images([image]), scoring, PredictConfig())
    (other,) = predict(own.guides, find_images([image]), ScoreConfig(), PredictConfig())

    assert load_threshold(own.guides, "default").asked.scoring.pool == pool
    assert same.score == pytest.approx(float(table["score"][0]), abs=1e-5)
    assert same.verdict is not None
    assert f"is for pool {pool}, image_score map, tau 0.0" in other.reason


def test_a_sweep_takes_poolings_and_says_which_do_not_go_with_a_tau(own):
    arguments = ["sweep", "--aux", "aux", "--target", "target", "--backbone", "gabor", "--json"]
    small = ["--width", "24", "--k", "3", "--vary", "sae.epochs=1", "--vary", "guides.epochs=1"]
    varied = ["--vary", "score.pool=lse,top:0.1", "--vary", "score.tau=0,0.5"]

    shown = CliRunner().invoke(app, [*arguments, *small, *varied, "--store", own.url])

    found = json.loads(shown.stdout)
    assert found["points"] == 4
    [failed] = found["failed"]
    assert (failed["score.pool"], failed["score.tau"]) == ("top:0.1", 0.5)
    assert "--pool top:0.1 and --tau 0.5" in failed["reason"]


def test_below_chance_is_said_with_the_pooling_the_auxiliary_set_prefers(own, capsys):
    store = open_store(own.url)

    made = score(store, own.guides.id, "target", ScoreConfig())

    told = said(capsys)
    below = {n: m.image_auroc for n, m in made.document.categories.items() if m.image_auroc < 0.5}
    assert below, "the guides of the small store got better; take worse ones for this test"
    named = ", ".join(f"{name} {100 * value:.1f} %" for name, value in below.items())
    assert f"image AUROC is below chance for {named} (mean " in told
    n_images = len(few_of_each(open_dataset(store, "aux", "gabor")))
    assert f"on {n_images} images of aux, which the guides were fitted on, --pool " in told


def test_the_named_pooling_is_typed_as_it_is_named_and_scores_what_was_said(own, capsys):
    arguments = ["score", "--guides", own.guides.id, "--dataset", "aux", "--store", own.url]
    usual = CliRunner().invoke(app, [*arguments, "--json"])
    told = " ".join(usual.stderr.split())
    option, _, value = told.partition("fitted on, ")[2].partition(" is best: ")

    named = CliRunner().invoke(app, [*arguments, "--json", *option.split()])

    # all images of aux are tried here, for it has few
    best = json.loads(named.stdout)["metrics"]["mean"]["image_auroc"]
    assert f"{100 * best:.1f}" == value.split()[0]
    assert best > json.loads(usual.stdout)["metrics"]["mean"]["image_auroc"]
    assert "no other pooling is better on 16 images of aux" in " ".join(named.stderr.split())


def test_without_the_auxiliary_tokens_nothing_is_advised(own, capsys):
    shutil.rmtree(f"{own.url}/tokens/aux")

    score(open_store(own.url), own.guides.id, "target", ScoreConfig())

    told = said(capsys)
    assert "image AUROC is below chance for" in told
    assert "which pooling the auxiliary set prefers cannot be told: no tokens of 'aux'" in told
    assert "is best" not in told


def test_scores_above_chance_are_not_remarked_upon(own, capsys):
    exchanged = {name: tensor.flip(0) for name, tensor in own.guides.tensors.items()}
    document = replace(own.guides.document, id="exchanged")
    store = open_store(own.url)
    save_artifact(store, document, exchanged)

    made = score(store, "exchanged", "target", ScoreConfig())

    assert min(one.image_auroc for one in made.document.categories.values()) >= 0.5
    assert "chance" not in said(capsys)


def test_few_images_of_each_category_and_label_are_tried(own, monkeypatch):
    monkeypatch.setattr("pipeline.scoring.chance._IMAGES", 2)
    data = open_dataset(open_store(own.url), "aux", "gabor")

    rows = few_of_each(data)

    table = data.manifest.select(rows).to_pandas()
    assert table.groupby(["category", "label"]).size().max() == 2
    assert (np.diff(rows) > 0).all()
