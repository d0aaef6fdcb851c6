import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy.ndimage import gaussian_filter

from cache.store import open_store
from pipeline.artifacts import load_artifact, save_artifact, to_json
from pipeline.artifacts.terms import Backbone
from pipeline.configs import ScoreConfig
from pipeline.detection.load import load_detector
from pipeline.detection.values import compute_maps
from pipeline.inputs import open_dataset
from pipeline.scoring.blocks import MapPlan, open_scoring
from pipeline.scoring.categories import finish_category, submit_category, submit_inputs
from pipeline.scoring.score import score
from pipeline.workers.work import Here
from spg_core.errors import ArtifactError, ConfigError, NotInStore, StoreError
from spg_core.image_metrics import image_metrics
from spg_core.pixel_metrics import pixel_metrics
from spg_core.pooling import Pooling


@pytest.fixture(scope="module")
def scored(small_store):
    store = open_store(small_store.url)
    done = score(store, small_store.guides.id, "target", ScoreConfig(), save_maps=True, report=True)
    return store, done


def test_a_map_is_softmax_upsampled_and_blurred_on_its_own(small_store):
    store = open_store(small_store.url)
    data = open_dataset(store, "target", "gabor")
    guides = small_store.guides.tensors["guides_ema"]

    maps = compute_maps(load_detector(store, small_store.guides.id), data, np.array([3, 0]))

    for got, row in zip(maps, (3, 0), strict=True):
        tokens = torch.from_numpy(data.cache.tokens([row])[0]).float()
        cosines = torch.nn.functional.cosine_similarity(tokens[:, None], guides[None], dim=-1)
        p = torch.softmax(cosines / 0.07, dim=-1)[:, 1].reshape(1, 1, 6, 6)
        plain = torch.nn.functional.interpolate(p, (96, 96), mode="bilinear")[0, 0].numpy()
        np.testing.assert_allclose(got, gaussian_filter(plain, 4), atol=1e-5)


def test_saved_maps_lie_in_manifest_order_and_give_the_metrics(small_store, scored):
    store, done = scored
    data = open_dataset(store, "target", "gabor")
    maps = np.asarray(zarr.open_array(f"{done.path}/maps.zarr", mode="r")[:])

    assert maps.shape == (data.cache.n_images, 96, 96)
    for category, values in done.document.categories.items():
        rows = data.manifest.rows_of(category)
        image = image_metrics(maps[rows].max((1, 2)), data.manifest.labels[rows])
        pixel = pixel_metrics(maps[rows], data.cache.masks(rows))
        assert values.image_auroc == image.auroc
        assert values.pixel_aupro == pixel.aupro


def test_every_image_has_its_score_in_the_table(small_store, scored):
    _, done = scored

    images = pd.read_parquet(f"{done.path}/images.parquet")

    maps = zarr.open_array(f"{done.path}/maps.zarr", mode="r")[:]
    np.testing.assert_array_equal(images["score"], maps.max((1, 2)))
    assert list(images["row"]) == list(range(len(images)))
    categories = pd.read_parquet(f"{done.path}/categories.parquet")
    assert set(categories["category"]) == set(images["category"])


def test_the_mean_is_unweighted_over_categories(scored):
    _, done = scored
    values = [row.pixel_auroc for row in done.document.categories.values()]

    assert done.document.mean.pixel_auroc == pytest.approx(np.mean(values))
    assert done.document.aupro == "exact"


def test_metrics_json_is_what_the_command_returns(scored):
    _, done = scored

    stored = json.loads((Path(done.path) / "metrics.json").read_text())
    assert stored == {"format": 2, "kind": "scores", **to_json(done.document)}


def test_the_report_shows_pictures_without_a_network(scored):
    _, done = scored
    page = (Path(done.path) / "report.html").read_text()

    assert "data:image/jpeg;base64," in page
    assert 'src="http' not in page


def test_scoring_needs_no_image_folder(small_store, scored, tmp_path):
    moved = small_store.images.rename(tmp_path / "gone")
    try:
        store, _ = scored
        assert score(store, small_store.guides.id, "target", ScoreConfig(tau=0.1)).id
    finally:
        moved.rename(small_store.images)


def test_the_same_request_finds_the_same_scores_and_another_tau_others(small_store, scored):
    store, done = scored

    assert score(store, small_store.guides.id, "target", ScoreConfig()).id == done.id
    assert score(store, small_store.guides.id, "target", ScoreConfig(sigma=1)).id != done.id


def test_an_infinite_tau_scores_by_the_mean_and_is_saved(small_store, scored):
    store, done = scored

    by_mean = score(store, small_store.guides.id, "target", ScoreConfig(tau=math.inf), report=True)

    assert to_json(by_mean.document)["config"]["tau"] == "inf"
    assert by_mean.document.mean.pixel_auroc == done.document.mean.pixel_auroc
    again = score(store, small_store.guides.id, "target", ScoreConfig(tau=math.inf))
    assert again.id == by_mean.id


def test_a_category_with_one_class_has_null_with_a_reason(small_store):
    store = open_store(small_store.url)
    data = open_dataset(store, "target", "gabor")
    normal = np.flatnonzero(data.manifest.labels == 0)[:2]
    plan = MapPlan(load_detector(store, small_store.guides.id), (Pooling(),))
    here = Here(open_scoring(store, data, [plan], "cpu"))

    pending = submit_category(here, submit_inputs(here, data, "x", normal), 0)
    [found] = finish_category(here, data, plan, [ScoreConfig()], pending)

    assert found.image.auroc is None
    assert found.image.reason
    assert found.pixel.aupro is None


def test_guides_of_another_backbone_are_refused_by_field(small_store):
    store = open_store(small_store.url)
    own = small_store.guides
    backbone = Backbone(name="gabor", covers={**own.document.backbone.covers, "layer": 3})
    document = replace(own.document, id="other-backbone", backbone=backbone)
    save_artifact(store, document, own.tensors)

    with pytest.raises(ArtifactError, match="different backbones or settings: layer is 3 in one"):
        score(store, "other-backbone", "target", ScoreConfig())


def test_a_dataset_that_is_not_there_says_how_to_make_it(small_store):
    store = open_store(small_store.url)

    with pytest.raises(NotInStore, match="spg-pipe extract --backbone gabor --dataset bolts"):
        score(store, small_store.guides.id, "bolts", ScoreConfig())


@pytest.mark.parametrize(
    "changes",
    [{"tau": -1}, {"sigma": -1}, {"sigma": math.inf}, {"coefficients": "mean"}, {"aupro": "half"}],
)
def test_impossible_options_are_refused_before_anything_is_read(changes):
    with pytest.raises(ConfigError, match=f"--{next(iter(changes))} is"):
        ScoreConfig(**changes)


def test_the_library_gives_the_same_scores_as_the_command(small_store, scored):
    store, done = scored
    detector = load_detector(small_store.url, small_store.guides.id)
    cache = open_dataset(store, "target", "gabor").cache

    scores = detector.scores(detector.maps(torch.from_numpy(cache.tokens(slice(0, 5)))))

    images = pd.read_parquet(f"{done.path}/images.parquet")
    np.testing.assert_allclose(scores.numpy(), images["score"][:5], atol=1e-6)
    assert load_artifact(store, "guides", "latest").id


@pytest.mark.parametrize("sigma", [1.0, 2.5, 4.0, 8.0, 20.0])
def test_maps_stay_in_0_1_where_every_patch_is_surely_anomalous(small_store, sigma):
    detector = load_detector(small_store.url, small_store.guides.id, ScoreConfig(sigma=sigma))
    [part], [operator] = detector.parts, detector.operators
    sure = dataclasses.replace(detector, parts=(dataclasses.replace(part, temperature=1e-4),))
    tokens = part.guides[1].expand(1, detector.spec.grid.tokens_per_image, -1)

    maps = sure.maps(tokens)

    assert float(operator(*sure.values(tokens)).min()) > 0.99
    assert float(maps.max()) <= 1


def test_a_store_that_cannot_be_written_is_refused_before_the_work(small_store, monkeypatch):
    store = open_store(small_store.url, read_only=True)
    monkeypatch.setattr("pipeline.scoring.score._score_all", lambda *_: pytest.fail("it began"))

    with pytest.raises(StoreError, match="read-only"):
        score(store, small_store.guides.id, "target", ScoreConfig(tau=0.7))


def test_scoring_the_fitted_set_is_remarked_upon(small_store, capsys):
    score(open_store(small_store.url), small_store.guides.id, "aux", ScoreConfig(tau=0.3))

    assert "the guides are fitted on aux" in " ".join(capsys.readouterr().err.split())
