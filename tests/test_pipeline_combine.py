"""Detectors of several parts: what they come to, which tokens they take, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from typer.testing import CliRunner

from cache.reader import TokenCache
from cache.store import open_store
from pipeline.artifacts import load_artifact
from pipeline.artifacts.names import give_name
from pipeline.calibration.calibrate import calibrate
from pipeline.cli import app
from pipeline.configs import (
    CalibrateConfig,
    CalibrateSource,
    CombineConfig,
    PredictConfig,
    ScoreConfig,
)
from pipeline.detection.combine import combine
from pipeline.detection.find import find_detector
from pipeline.detection.load import load_detector
from pipeline.detection.sources import open_sources
from pipeline.detection.values import compute_maps
from pipeline.extraction.extract import extract
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.report.data import ImageRow
from pipeline.scoring.report_gallery import make_gallery
from pipeline.scoring.score import score, score_group
from spg_core.anomaly_map import map_operator
from spg_core.errors import ArtifactError, ConfigError, NotInStore
from tests.small_store import GUIDES, SAE, extract_config


@pytest.fixture(scope="module")
def both(small_store, tmp_path_factory):
    """A store with tokens of 96 and of 64 pixels, two grids, and guides on either."""
    place = tmp_path_factory.mktemp("both") / "store"
    ignore = shutil.ignore_patterns("scores", "sweeps", "names", "combinations")
    store = open_store(shutil.copytree(small_store.url, place, ignore=ignore))
    keys = {}
    for which in ("aux", "target"):
        keys[which] = open_dataset(store, which, "gabor").cache.key
        small = replace(extract_config(small_store.images, which), image_size=64)
        extract(store, small)
    coarse = [key for key in _keys(store, "aux") if key != keys["aux"]]
    sae = fit_sae(store, open_dataset(store, "aux", "gabor", coarse[0]), SAE)
    # guides that find something: an average of few steps is mostly its start
    learned = replace(GUIDES, epochs=20, ema=0.5)
    return store, *(fit_guides(store, one, learned).id for one in (small_store.sae.id, sae.id))


def _keys(store, dataset):
    return sorted(path.name for path in Path(store.where, "tokens", dataset, "gabor").iterdir())


def _maps(store, made):
    return np.asarray(zarr.open_array(f"{made.path}/maps.zarr", mode="r")[:])


def _image_scores(made):
    return pq.read_table(f"{made.path}/images.parquet")["score"].to_numpy()


def _scored(store, detector, **more):
    return score(store, detector, "target", ScoreConfig(), save_maps=True, **more)


def test_parts_with_other_grids_meet_at_the_pixels_of_the_first(both):
    store, fine, coarse = both

    made = _scored(store, combine(store, [fine, coarse], CombineConfig()))

    alone = _maps(store, _scored(store, fine))
    other = load_detector(store, coarse)
    cache = open_dataset(store, "target", "gabor", _key_of(store, "target", 64)).cache
    [values] = other.values(torch.from_numpy(cache.tokens(slice(0, 5))))
    size = load_detector(store, fine).spec
    drawn = map_operator(other.spec.grid, size.height, size.width, 4.0)(values).numpy()
    maps = _maps(store, made)
    assert maps.shape[1:] == (96, 96)
    np.testing.assert_allclose(maps[:5], (alone[:5] + drawn) / 2, atol=1e-5)


def _key_of(store, dataset, height):
    opened = [open_dataset(store, dataset, "gabor", key) for key in _keys(store, dataset)]
    return next(one.cache.key for one in opened if one.spec.height == height)


def test_patches_of_each_part_are_pooled_by_themselves_and_meet_as_maps_do(both):
    store, fine, coarse = both
    scoring = ScoreConfig(pool="patches:0.25")

    alone = [score(store, one, "target", scoring) for one in (fine, coarse)]
    mean = score(store, combine(store, [fine, coarse], CombineConfig()), "target", scoring)

    expected = (_image_scores(alone[0]) + _image_scores(alone[1])) / 2
    np.testing.assert_allclose(_image_scores(mean), expected, atol=1e-6)
    detector = load_detector(store, mean.document.parents.combination, scoring)
    with pytest.raises(ArtifactError, match=r"give the values of all 2 parts, .* got 0"):
        detector.scores(torch.zeros(1, 96, 96))


def test_each_part_finds_its_own_tokens_without_a_key(both):
    store, fine, coarse = both

    for guides, height in ((fine, 96), (coarse, 64)):
        made = score(store, guides, "target", ScoreConfig(sigma=1.0))
        assert made.document.parents.cache.key == _key_of(store, "target", height)


def test_a_report_shows_what_each_part_saw(both):
    store, fine, coarse = both
    together = combine(store, (fine, coarse), CombineConfig())
    detector = load_detector(store, together.id)
    data = open_sources(store, "target", detector.specs)
    rows = data.manifest.rows_of(data.manifest.categories[0])[:3]
    images = [
        ImageRow(row=int(r), category="c", defect="d", label=i % 2, score=i / 4, image_path="p")
        for i, r in enumerate(rows)
    ]

    shown = make_gallery(images, data, detector)

    alone = compute_maps(load_detector(store, fine), data, np.array([i.image.row for i in shown]))
    for item, fine_alone in zip(shown, alone, strict=True):
        assert list(item.parts) == ["96 px", "64 px"]
        np.testing.assert_allclose(item.parts["96 px"], fine_alone, atol=1e-6)
        np.testing.assert_allclose(
            np.mean(list(item.parts.values()), axis=0), item.anomaly_map, atol=1e-6
        )
    made = score(store, together.id, "target", ScoreConfig(), report=True)
    page = Path(made.path, "report.html").read_text()
    assert page.count("Heatmap of the part 64 px, highest value") > 6


def test_a_part_scores_in_company_as_it_does_alone_and_is_read_once(both, monkeypatch):
    store, fine, coarse = both
    mean = combine(store, [fine, coarse], CombineConfig())
    config = ScoreConfig(sigma=2.0)
    read = []
    real = TokenCache.tokens
    monkeypatch.setattr(
        TokenCache,
        "tokens",
        lambda cache, rows: read.extend((cache.key, int(row)) for row in rows) or real(cache, rows),
    )

    made = score_group(store, [(fine, config), (mean.id, config)], "target")

    assert len(read) == len(set(read))
    assert {key for key, _ in read} == set(_keys(store, "target"))
    shutil.rmtree(Path(store.where, "scores"))
    for name, one in zip((fine, mean.id), made, strict=True):
        again = score(store, name, "target", config)
        assert replace(again.document, created="") == replace(one.document, created="")
    assert [one.key for one in made[1].document.parents.others] == [_key_of(store, "target", 64)]
    assert made[1].document.parents.detector == ("combinations", mean.id)


def test_the_command_combines_in_passing_and_finds_it_again(both):
    store, fine, coarse = both
    options = ["--dataset", "target", "--store", store.where, "--json"]

    made = CliRunner().invoke(app, ["combine", "--guides", f"{fine},{coarse}", *options[2:]])
    passing = CliRunner().invoke(app, ["score", "--guides", f"{fine},{coarse}", *options])
    named = CliRunner().invoke(app, ["score", "--guides", json.loads(made.stdout)["id"], *options])

    parts = json.loads(made.stdout)["parts"]
    assert [(one["id"], one["weight"], one["scale"]) for one in parts] == [
        (fine, 0.5, None),
        (coarse, 0.5, None),
    ]
    assert json.loads(passing.stdout)["id"] == json.loads(named.stdout)["id"]


@pytest.mark.parametrize("how", ["max", "learned"])
def test_a_maximum_and_learned_weights_are_put_on_one_scale_by_the_auxiliary_set(both, how):
    store, fine, coarse = both

    made = combine(store, [fine, coarse], CombineConfig(combine=how))

    document = made.document
    assert document.parents.cache.dataset == "aux"
    assert all(part.scale.slope > 0 for part in document.parts)
    assert sum(part.weight for part in document.parts) == pytest.approx(1)
    assert min(part.weight for part in document.parts) >= 0
    again = load_artifact(store, "combinations", made.id)
    torch.testing.assert_close(
        again.tensors["weights"], torch.tensor([part.weight for part in document.parts])
    )


def test_predict_gives_a_combinations_cached_scores(both, small_store):
    store, fine, coarse = both
    made = combine(store, [fine, coarse], CombineConfig(combine="max"))
    scored = _scored(store, made)
    table = pq.read_table(f"{scored.path}/images.parquet").to_pydict()
    paths = [str(small_store.images / "target" / path) for path in table["image_path"][:6]]

    found = list(predict(made, find_images(paths), ScoreConfig(), PredictConfig()))

    np.testing.assert_allclose([one.score for one in found], table["score"][:6], atol=1e-5)


def test_a_threshold_is_chosen_for_a_combination_and_used(both, small_store):
    store, fine, coarse = both
    made = combine(store, [fine, coarse], CombineConfig())

    source = CalibrateSource(guides=made.id)
    chosen = calibrate(store, made, ScoreConfig(), source, CalibrateConfig(rate=0.5))

    images = sorted((small_store.images / "target").rglob("*.png"))[:1]
    [found] = predict(made, find_images([str(images[0])]), ScoreConfig(), PredictConfig())
    assert found.threshold == chosen.threshold
    assert chosen.guides == made.id


def test_latest_is_the_newest_of_all_kinds(both):
    store, fine, coarse = both
    made = combine(store, [coarse, fine], CombineConfig(), name="pair")

    assert find_detector(store, "latest").id == made.id
    assert find_detector(store, "pair").id == made.id
    assert find_detector(store, fine).id == fine


def test_what_cannot_be_combined_is_refused(both):
    store, fine, coarse = both
    pair = combine(store, [fine, coarse], CombineConfig(), name="duo")
    give_name(store, "guides", fine, "fine")

    with pytest.raises(ConfigError, match="two parts or more, each once"):
        combine(store, [fine, fine], CombineConfig())
    with pytest.raises(ArtifactError, match=f"is a combination already.*{fine},{coarse}"):
        combine(store, [pair.id, fine], CombineConfig())
    with pytest.raises(ArtifactError, match=f"the name fine means guides/{fine}"):
        combine(store, [coarse, fine], CombineConfig(), name="fine")


def test_tokens_that_are_missing_are_named_with_their_command(both, tmp_path):
    store, fine, coarse = both
    pair = combine(store, [fine, coarse], CombineConfig())
    own = open_store(shutil.copytree(store.where, tmp_path / "own"))
    shutil.rmtree(Path(own.where, "tokens/target/gabor", _key_of(store, "target", 64)))

    with pytest.raises(
        NotInStore, match=r"extract --backbone gabor --image-size 64 .*--name target"
    ):
        score(own, pair.id, "target", ScoreConfig(sigma=3.0))


def test_coefficients_that_a_scale_was_not_fitted_with_are_refused(both):
    store, fine, coarse = both
    made = combine(store, [fine, coarse], CombineConfig(combine="max"))

    with pytest.raises(ArtifactError, match="combine them anew with --coefficients raw"):
        score(store, made.id, "target", ScoreConfig(coefficients="raw"))
