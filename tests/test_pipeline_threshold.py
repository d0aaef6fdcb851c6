"""Thresholds: chosen on labelled scores, kept with the guides, used for the same scores only."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.store import open_store
from pipeline.artifacts import Artifact, load_artifact, to_json
from pipeline.artifacts.documents import GuidesDocument
from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.prediction.threshold import (
    calibrate,
    choose_threshold,
    f1max_threshold,
    fpr_threshold,
    load_threshold,
    measured_at,
    require_use,
)
from spg_core.errors import ConfigError, CorruptStore, MetricError, StoreError
from spg_core.image_metrics import image_metrics


@pytest.fixture(scope="module")
def image(small_store) -> str:
    """One image of the target."""
    return str(min((small_store.images / "target").rglob("test/good/*.png")))


@pytest.fixture
def own_guides(small_store, tmp_path) -> Artifact[GuidesDocument]:
    """The guides in a place where a test may calibrate them; their cache is where it was."""
    copy = tmp_path / "guides" / small_store.guides.id
    shutil.copytree(small_store.guides.path, copy)
    return load_artifact(open_store(small_store.url), "guides", str(copy))


def judged(guides, image, threshold=None):
    config = PredictConfig(threshold=threshold)
    (one,) = predict(guides, find_images([image]), ScoreConfig(), config)
    return one


def scores_and_labels():
    scores = st.lists(st.integers(0, 12).map(lambda n: n / 12), min_size=2, max_size=30)
    return scores.flatmap(
        lambda values: st.tuples(
            st.just(np.array(values, np.float32)),
            st.lists(st.booleans(), min_size=len(values), max_size=len(values))
            .map(np.array)
            .filter(lambda labels: labels.any() and not labels.all()),
        )
    )


def test_thresholds_worked_by_hand():
    scores = np.array([0.125, 0.25, 0.5, 0.75], np.float32)
    labels = np.array([False, True, False, True])

    # from 0.25 on: 2 hits of 3 flagged, F1 = 4/5; from 0.75 on: 1 of 1, F1 = 2/3
    assert f1max_threshold(scores, labels) == (0.125 + 0.25) / 2
    assert fpr_threshold(scores, labels, 0.0) == (0.5 + 0.75) / 2
    assert fpr_threshold(scores, labels, 0.5) == (0.125 + 0.25) / 2
    measured = measured_at(scores, labels, 0.1875)
    assert to_json(measured) == {
        "n_normal": 2,
        "n_anomalous": 2,
        "fpr": 0.5,
        "tpr": 1.0,
        "precision": pytest.approx(2 / 3),
        "f1": 0.8,
    }


@given(scores_and_labels())
def test_the_f1_threshold_reaches_the_best_f1_there_is(case):
    scores, labels = case

    threshold = f1max_threshold(scores, labels)

    best = image_metrics(scores, labels.astype(np.int64)).f1max
    assert measured_at(scores, labels, threshold).f1 == pytest.approx(best)


@given(scores_and_labels(), st.floats(0, 0.99))
def test_the_rate_threshold_keeps_the_rate_and_the_next_lower_score_does_not(case, fpr):
    scores, labels = case
    if np.sort(scores[~labels])[::-1][int(fpr * (~labels).sum() + 1e-9)] == 1:
        with pytest.raises(MetricError, match="no threshold reaches"):
            fpr_threshold(scores, labels, fpr)
        return

    threshold = fpr_threshold(scores, labels, fpr)

    assert measured_at(scores, labels, threshold).fpr <= fpr + 1e-9
    lower = scores[scores.astype(np.float64) < threshold].max()
    assert measured_at(scores, labels, float(lower)).fpr > fpr


def test_a_threshold_needs_both_classes_and_finite_scores():
    scores = np.array([0.1, 0.2], np.float32)

    with pytest.raises(MetricError, match="all 2 calibration images are of one class"):
        f1max_threshold(scores, np.array([True, True]))
    with pytest.raises(MetricError, match="all 2 calibration images are of one class"):
        fpr_threshold(scores, np.array([False, False]), 0.1)
    with pytest.raises(MetricError, match="NaN"):
        f1max_threshold(np.array([0.1, np.nan], np.float32), np.array([True, False]))


def test_without_a_threshold_there_is_no_verdict_but_a_reason(own_guides, image):
    one = judged(own_guides, image)

    assert one.score is not None
    assert (one.threshold, one.threshold_source, one.verdict) == (None, None, None)
    assert "give --threshold, or save one with the guides" in one.reason


def test_a_given_threshold_judges_from_that_score_on(own_guides, image):
    plain = judged(own_guides, image)

    at = judged(own_guides, image, plain.score)
    above = judged(own_guides, image, min(1.0, plain.score + 1e-4))

    assert (at.verdict, at.threshold_source) == ("anomalous", "given")
    assert above.verdict == "normal"


def test_calibration_is_kept_with_the_guides_and_the_verdict_says_so(
    small_store, own_guides, image
):
    store = open_store(small_store.url)

    saved = calibrate(store, own_guides, ScoreConfig(), None)
    one = judged(own_guides, image)

    assert saved == load_threshold(own_guides)
    assert saved.measured.n_normal + saved.measured.n_anomalous > 0
    assert one.threshold == saved.threshold
    assert one.threshold_source == "calibrated for F1-max on aux"
    assert one.verdict == ("anomalous" if one.score >= one.threshold else "normal")

    again = calibrate(store, own_guides, ScoreConfig(), 0.25)

    assert again.measured.fpr <= 0.25
    source = choose_threshold(own_guides, ScoreConfig(), None).source
    assert source == "calibrated for a false-positive rate of 0.25 on aux"


def test_a_threshold_for_other_scores_is_not_used(small_store, own_guides):
    calibrate(open_store(small_store.url), own_guides, ScoreConfig(tau=float("inf")), None)

    chosen = choose_threshold(own_guides, ScoreConfig(), None)
    same = choose_threshold(own_guides, ScoreConfig(tau=float("inf")), None)

    assert chosen.value is None
    assert (
        "is for pool lse, image_score map, tau inf, sigma 4.0, coefficients ema, these"
        in chosen.reason
    )
    assert "these scores are for pool lse, image_score map, tau 0.0, sigma 4.0" in chosen.reason
    assert same.value is not None


def test_a_store_that_is_only_read_is_refused_before_anything_is_scored(small_store, own_guides):
    place = replace(own_guides.place, store=open_store(own_guides.place.store.where, True))
    empty = open_store(f"{place.store.where}-that-is-not-there")  # nothing to score in it

    with pytest.raises(StoreError, match="was opened read-only"):
        calibrate(empty, replace(own_guides, place=place), ScoreConfig(), None)


def test_a_torn_or_foreign_threshold_is_refused(small_store, own_guides):
    calibrate(open_store(small_store.url), own_guides, ScoreConfig(), None)
    path = Path(own_guides.path) / "threshold.json"
    good = json.loads(path.read_text())

    for broken, message in (
        ("{", "is not JSON"),
        ("[]", "does not describe a threshold"),
        (json.dumps(good | {"guides": "others"}), "belongs to guides 'others'"),
        (
            json.dumps(good | {"threshold": "0.5"}),
            "threshold is '0.5'; it must be a number, 0 to 1",
        ),
    ):
        path.write_text(broken)
        with pytest.raises(CorruptStore, match=message):
            load_threshold(own_guides)


def test_impossible_thresholds_and_rates_are_refused(small_store, own_guides):
    with pytest.raises(ConfigError, match=r"an image score in \[0, 1\], got 1.5"):
        choose_threshold(own_guides, ScoreConfig(), 1.5)
    with pytest.raises(ConfigError, match=r"a share of the normal images in \[0, 1\), got 1"):
        calibrate(open_store(small_store.url), own_guides, ScoreConfig(), 1.0)


@pytest.mark.parametrize(("threshold", "flags"), [(0.0, "every"), (0.25, "every"), (0.7501, "no")])
def test_a_threshold_that_tells_nothing_apart_is_refused_with_the_scores(threshold, flags):
    scores = np.array([0.25, 0.3, 0.5, 0.75], np.float32)
    labels = np.array([False, True, False, True])

    with pytest.raises(
        MetricError,
        match=f"flags {flags} image .* 2 normal images score 0.2500 to 0.5000 and "
        "2 anomalous images score 0.3000 to 0.7500",
    ):
        require_use(scores, labels, threshold)
    require_use(scores, labels, 0.4)


def test_a_detector_that_says_the_same_of_every_image_is_not_calibrated(
    small_store, own_guides, monkeypatch
):
    monkeypatch.setattr(
        "pipeline.detection.values.score_images",
        lambda _, maps, *__: np.full(len(maps), 0.5, np.float32),
    )

    with pytest.raises(MetricError, match="flags every image it was chosen on"):
        calibrate(open_store(small_store.url), own_guides, ScoreConfig(), None)
    assert load_threshold(own_guides) is None
