"""Thresholds kept with a detector: which of them is meant, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.store import open_store
from pipeline.artifacts import Artifact, load_artifact
from pipeline.artifacts.documents import GuidesDocument
from pipeline.calibration.calibrate import ThresholdTaken, calibrate
from pipeline.configs import CalibrateConfig, CalibrateSource, PredictConfig, ScoreConfig
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.prediction.threshold import choose_threshold, list_thresholds, load_threshold
from spg_core.errors import ConfigError, CorruptStore, MetricError, NotInStore, StoreError

MEAN = ScoreConfig(tau=float("inf"))


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


@pytest.fixture
def calibrated(small_store, own_guides):
    """Calibrate the guides on the auxiliary set, or on another cached dataset."""

    def made(scoring: ScoreConfig | None = None, *, dataset=None, category=(), **config):
        source = CalibrateSource(guides=own_guides.id, dataset=dataset, category=category)
        asked = CalibrateConfig(**config)
        store = open_store(small_store.url)
        return calibrate(store, own_guides, scoring or ScoreConfig(), source, asked)

    return made


def judged(guides, image, **config):
    (one,) = predict(guides, find_images([image]), ScoreConfig(), PredictConfig(**config))
    return one


def test_without_a_threshold_there_is_no_verdict_but_a_reason(own_guides, image):
    one = judged(own_guides, image)

    assert one.score is not None
    assert (one.threshold, one.threshold_source, one.verdict) == (None, None, None)
    assert one.reason == (
        "no threshold: give --threshold, or save one with the detector by "
        f"`spg-pipe calibrate --guides {own_guides.id} --good FOLDER`"
    )


def test_a_given_threshold_judges_from_that_score_on(own_guides, image):
    plain = judged(own_guides, image)

    at = judged(own_guides, image, threshold=plain.score)
    above = judged(own_guides, image, threshold=min(1.0, plain.score + 1e-4))

    assert (at.verdict, at.threshold_source) == ("anomalous", "given")
    assert above.verdict == "normal"


def test_calibration_is_kept_with_the_guides_and_the_verdict_says_so(calibrated, own_guides, image):
    saved = calibrated()
    one = judged(own_guides, image)

    found = saved.chosen[0].measured
    assert saved == load_threshold(own_guides, "default")
    assert saved.asked.calibrated_on.is_auxiliary
    assert one.threshold == saved.threshold
    assert one.threshold_source == (
        f"default, calibrated for F1-max on {found.n_normal} normal and {found.n_anomalous} "
        "anomalous images of aux"
    )
    assert one.verdict == ("anomalous" if one.score >= one.threshold else "normal")


def test_a_name_is_never_given_to_another_threshold_in_silence(calibrated, own_guides, capsys):
    first = calibrated()

    assert calibrated() == first
    assert "the threshold default is there already" in capsys.readouterr().err
    with pytest.raises(ThresholdTaken, match="has the threshold default, calibrated for F1-max on"):
        calibrated(rate=0.5)
    assert load_threshold(own_guides, "default") == first
    second = calibrated(rate=0.5, replace=True)
    assert load_threshold(own_guides, "default") == second
    assert second.chosen[0].measured.fpr <= second.chosen[0].promised <= 0.5


def test_of_several_thresholds_the_default_is_meant_else_they_are_listed(calibrated, own_guides):
    calibrated(name="line-3")
    assert choose_threshold(own_guides, ScoreConfig()).source.startswith("line-3, calibrated")

    line4 = calibrated(name="line-4", rate=0.5)
    with pytest.raises(
        ConfigError, match=r"several thresholds.* --threshold-name: line-3, .*line-"
    ):
        choose_threshold(own_guides, ScoreConfig())
    assert choose_threshold(own_guides, ScoreConfig(), name="line-4").value == line4.threshold

    other = calibrated(rate=0.4)
    assert choose_threshold(own_guides, ScoreConfig()).value == other.threshold
    assert list_thresholds(own_guides) == ["default", "line-3", "line-4"]
    with pytest.raises(
        NotInStore,
        match=r"no threshold 'line-5', it has default, line-3, line-4; make it .* --name line-5`",
    ):
        choose_threshold(own_guides, ScoreConfig(), name="line-5")


def test_a_threshold_for_other_scores_is_not_used(calibrated, own_guides):
    calibrated(MEAN, name="mean")

    chosen = choose_threshold(own_guides, ScoreConfig())

    assert chosen.value is None
    assert "mean is for pool lse, image_score map, tau inf, sigma 4.0, coeff" in chosen.reason
    assert "these scores are for pool lse, image_score map, tau 0.0, sigma 4.0" in chosen.reason
    assert choose_threshold(own_guides, MEAN).value is not None
    with pytest.raises(ConfigError, match="the threshold mean is for pool lse"):
        choose_threshold(own_guides, ScoreConfig(), name="mean")
    # of two, the one that fits is the only one there is
    fitting = calibrated(name="max")
    assert choose_threshold(own_guides, ScoreConfig()).value == fitting.threshold


def test_each_category_has_its_own_threshold_and_predict_asks_which(calibrated, own_guides, image):
    saved = calibrated(dataset="target", per_category=True, rate=0.98)

    own = {one.category: one for one in saved.chosen}
    first, second, *_ = own
    assert len({one.threshold for one in saved.chosen}) > 1
    assert not saved.asked.calibrated_on.is_auxiliary
    with pytest.raises(ConfigError, match=f"one for each of {first}, .*with --category"):
        judged(own_guides, image)
    with pytest.raises(ConfigError, match="there is none for nut"):
        judged(own_guides, image, category="nut")
    one = judged(own_guides, image, category=second)
    assert one.threshold == own[second].threshold
    assert f"default for {second}, calibrated on" in one.threshold_source


def test_a_threshold_of_one_category_is_not_used_for_another(calibrated, own_guides):
    names = [
        one.category for one in calibrated(dataset="target", per_category=True, rate=0.98).chosen
    ]
    calibrated(dataset="target", category=(names[0],), rate=0.98, name="one")

    with pytest.raises(
        ConfigError, match=rf"calibrated on {names[0]}, these images are of {names[1]}"
    ):
        choose_threshold(own_guides, ScoreConfig(), name="one", category=names[1])
    # where none is named, one of another category is not meant
    assert choose_threshold(own_guides, ScoreConfig(), category=names[0]).source.startswith(
        "default"
    )
    calibrated(dataset="target", category=(names[1],), rate=0.98, replace=True)
    assert choose_threshold(own_guides, ScoreConfig(), category=names[0]).source.startswith("one,")
    with pytest.raises(ConfigError, match=r"--category is nut; .* has "):
        calibrated(dataset="target", category=("nut",))


def test_a_store_that_is_only_read_is_refused_before_anything_is_scored(small_store, own_guides):
    place = replace(own_guides.place, store=open_store(own_guides.place.store.where, True))
    empty = open_store(f"{place.store.where}-that-is-not-there")  # nothing to score in it
    source = CalibrateSource(guides=own_guides.id)

    with pytest.raises(StoreError, match="was opened read-only"):
        calibrate(empty, replace(own_guides, place=place), ScoreConfig(), source, CalibrateConfig())


def test_a_torn_or_foreign_threshold_is_refused_and_may_be_replaced(calibrated, own_guides):
    calibrated()
    path = Path(own_guides.path) / "thresholds/default.json"
    good = json.loads(path.read_text())

    for broken, message in (
        ("{", "is not JSON.*calibrate again with --name default --replace"),
        ("[]", "does not describe a threshold"),
        (json.dumps(good | {"guides": "others"}), "is the threshold 'default' of 'others'"),
        (json.dumps(good | {"chosen": []}), "chosen is"),
    ):
        path.write_text(broken)
        with pytest.raises(CorruptStore, match=message):
            choose_threshold(own_guides, ScoreConfig())
        with pytest.raises(CorruptStore):
            calibrated()
    assert calibrated(replace=True) == load_threshold(own_guides, "default")


def test_a_threshold_of_an_earlier_version_is_named_and_not_read(own_guides, image):
    (Path(own_guides.path) / "threshold.json").write_text('{"threshold": 0.5}')

    one = judged(own_guides, image)

    assert one.verdict is None
    assert "threshold.json is of an earlier version and is not read): give --thr" in one.reason


def test_impossible_thresholds_and_rates_are_refused(own_guides, calibrated):
    with pytest.raises(ConfigError, match=r"an image score in \[0, 1\], got 1\.5"):
        choose_threshold(own_guides, ScoreConfig(), 1.5)
    with pytest.raises(ConfigError, match=r"--rate is 1\.0; it must be"):
        calibrated(rate=1.0)
    with pytest.raises(ConfigError, match="--threshold and --threshold-name"):
        PredictConfig(threshold=0.5, threshold_name="line-3")
    with pytest.raises(MetricError, match=r"good parts can promise at most .* 1% takes 299 parts"):
        calibrated(rate=0.01)


def test_a_detector_that_says_the_same_of_every_image_is_not_calibrated(
    calibrated, own_guides, monkeypatch
):
    monkeypatch.setattr(
        "pipeline.detection.values.score_images",
        lambda _, maps, *__: np.full(len(maps), 0.5, np.float32),
    )

    with pytest.raises(MetricError, match="flags every image it was chosen on"):
        calibrated()
    assert list_thresholds(own_guides) == []
