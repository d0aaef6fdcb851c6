"""Calibrate on own parts: what an engineer's folders hold, memories, combinations, caches."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import spg_pipe
from cache.store import open_store
from pipeline.artifacts import load_artifact
from pipeline.calibration.calibrate import calibrate
from pipeline.cli import app
from pipeline.configs import (
    CalibrateConfig,
    CalibrateSource,
    CombineConfig,
    FitMemoryConfig,
    FitMemorySource,
    PredictConfig,
    ScoreConfig,
)
from pipeline.detection.combine import combine
from pipeline.extraction.extract import extract
from pipeline.fitting.memory import fit_memory
from pipeline.fitting.normal_images import open_normal_images
from pipeline.prediction.familiar_file import choose_familiar, load_familiar, save_familiar
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.prediction.threshold import choose_threshold, load_threshold
from pipeline.sample.shot import SampleConfig
from pipeline.sample.write import write_sample
from spg_core.errors import ArtifactError, ConfigError, DatasetError, MetricError, OptionsDisagree
from tests.small_store import extract_config

N_GOOD = 8


@pytest.fixture(scope="module")
def line(small_store, tmp_path_factory):
    """A store of its own with the guides, and train images of the target."""
    place = tmp_path_factory.mktemp("line")
    shutil.copytree(small_store.url, place / "store")
    size = SampleConfig(image_size=96, images_per_category=2, train_images_per_category=N_GOOD)
    write_sample(place / "images", size)
    train = replace(extract_config(place / "images", "target"), split="train", name="parts")
    extract(open_store(place / "store"), train)
    return place


@pytest.fixture(scope="module")
def category(line):
    return min(path.name for path in (line / "images/target").iterdir() if path.is_dir())


@pytest.fixture
def guides(line, small_store, tmp_path):
    """The guides where a test may calibrate them."""
    copy = tmp_path / "guides" / small_store.guides.id
    shutil.copytree(small_store.guides.path, copy)
    return load_artifact(open_store(line / "store"), "guides", str(copy))


@pytest.fixture
def good(line, category, tmp_path):
    """A folder of good photos that a test may spoil."""
    folder = tmp_path / "good"
    shutil.copytree(line / f"images/target/{category}/train/good", folder)
    return folder


@pytest.fixture(scope="module")
def unlike(line, small_store):
    """The two images of the store to which the guides give the highest scores."""
    paths = [str(path) for path in sorted((line / "images/auxiliary").rglob("*.JPG"))]
    scores = scores_of(small_store.guides, paths, threshold=0.5)
    return [paths[at] for at in np.argsort(scores)[-2:]]


@pytest.fixture
def bad(unlike, tmp_path):
    """A folder of them."""
    folder = tmp_path / "bad"
    folder.mkdir()
    for path in unlike:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def memory(line):
    """A memory of four train images of each category."""
    store = open_store(line / "store")
    data = open_normal_images(store, FitMemorySource(dataset="parts"))
    return fit_memory(store, data, FitMemoryConfig(shots=4))


def on(line, detector, *, scoring=None, config=None, **source):
    known = CalibrateSource(guides=detector.id, **source)
    store = open_store(line / "store")
    return calibrate(
        store, detector, scoring or ScoreConfig(), known, config or CalibrateConfig(replace=True)
    )


def scores_of(detector, paths, **config):
    found = predict(detector, find_images(paths), ScoreConfig(), PredictConfig(**config))
    return [one.score for one in found]


# --- guides ---------------------------------------------------------------------------------------


def test_good_parts_alone_promise_a_rate_and_predict_flags_none_of_them(line, guides, good):
    saved = on(line, guides, good=(str(good),))

    highest = max(scores_of(guides, [str(good)], threshold=0.5))
    [one] = saved.chosen
    assert (one.measured.n_normal, one.measured.n_anomalous, one.measured.fpr) == (N_GOOD, 0, 0.0)
    assert one.promised == pytest.approx(1 - 0.05 ** (1 / N_GOOD))
    assert highest < saved.threshold < highest + 1e-4
    assert len(saved.asked.calibrated_on.good) == N_GOOD
    found = list(predict(guides, find_images([str(good)]), ScoreConfig(), PredictConfig()))
    assert {one.verdict for one in found} == {"normal"}
    assert found[0].threshold_source == (
        "default, calibrated on 8 good parts: at most 31.3% false alarms with 95% confidence"
    )


def test_bad_parts_beside_the_good_ones_choose_by_f1_or_measure_a_rate(line, guides, good, bad):
    both = on(line, guides, good=(str(good),), bad=(str(bad),))
    rated = on(
        line,
        guides,
        good=(str(good),),
        bad=(str(bad),),
        config=CalibrateConfig(rate=0.4, name="rated"),
    )

    assert (both.asked.criterion, rated.asked.criterion) == ("f1max", "rate")
    assert both.chosen[0].measured.n_anomalous == rated.chosen[0].measured.n_anomalous == 2
    assert rated.chosen[0].promised <= 0.4
    assert (
        "on 8 good and 2 bad parts" in choose_threshold(guides, ScoreConfig(), name="rated").source
    )


def test_a_threshold_of_no_category_says_so_of_images_of_one(line, guides, good, category, capsys):
    on(line, guides, good=(str(good),))
    scores_of(guides, [str(min(good.iterdir()))])
    assert "calibrated for" not in capsys.readouterr().err
    scores_of(guides, [str(min(good.iterdir()))], category=category)
    told = " ".join(capsys.readouterr().err.split())
    assert f"nothing was calibrated for {category} alone" in told
    assert "judged by the threshold default, calibrated on 8 good parts" in told

    own = CalibrateConfig(name="own")
    on(line, guides, good=(str(good),), category=(category,), config=own)
    capsys.readouterr()
    scores_of(guides, [str(min(good.iterdir()))], category=category, threshold_name="own")
    scores_of(guides, [str(min(good.iterdir()))], category=category, threshold=0.5)
    assert "calibrated for" not in capsys.readouterr().err


def test_what_cannot_be_promised_is_refused_before_the_model_loads(line, guides, good, monkeypatch):
    monkeypatch.setattr("pipeline.prediction.predict.load_model", None)  # it is not asked for
    with pytest.raises(MetricError, match=r"8 good parts can promise at most 31\.3% .* 59 parts"):
        on(line, guides, good=(str(good),), config=CalibrateConfig(rate=0.05))
    one = str(min(good.iterdir()))
    with pytest.raises(MetricError, match=r"1 good part can promise no more than at most 95"):
        on(line, guides, good=(one,))
    assert not (Path(guides.path) / "thresholds").exists()


def test_copies_count_once_and_what_cannot_be_read_is_left_out_and_said(line, guides, good, capsys):
    first = min(good.iterdir())
    shutil.copy(first, good / "copy.png")
    (good / "cut.png").write_bytes(first.read_bytes()[:200])
    Image.new("RGB", (120, 60)).save(good / "wide.png")

    saved = on(line, guides, good=(str(good), str(first)))

    told = capsys.readouterr().err
    assert saved.chosen[0].measured.n_normal == N_GOOD + 1
    assert "1 of 11 images are left out:" in told
    assert "cut.png: cannot be decoded" in told
    assert "1 are copies of others, byte for byte, and count once" in told
    assert "images of 2 sizes (8 of 110 x 110, 1 of 120 x 60" in told


def test_a_badly_named_file_stops_calibrate_as_little_as_predict(line, guides, good, capsys):
    shutil.copy(min(good.iterdir()), good / "two\nlines.png")

    saved = on(line, guides, good=(str(good),))
    found = list(predict(guides, find_images([str(good)]), ScoreConfig(), PredictConfig()))

    assert saved.chosen[0].measured.n_normal == N_GOOD
    assert "1 of 9 images are left out: " in capsys.readouterr().err
    assert [one.error is None for one in found].count(False) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda good, bad: shutil.copy(min(bad.iterdir()), good), "same image is good and bad: .*"),
        (lambda good, bad: shutil.rmtree(good), "--good: .*good: no such file or folder"),
        (
            lambda good, bad: [path.unlink() for path in good.iterdir()],
            "--good: .*no image in this folder",
        ),
        (
            lambda good, bad: [path.write_bytes(b"") for path in bad.iterdir()],
            "--bad: none of 2 images can be used; .*is empty",
        ),
    ],
)
def test_folders_that_are_not_what_they_should_be_are_refused(
    line, guides, good, bad, spoil, message
):
    spoil(good, bad)

    with pytest.raises(DatasetError, match=message):
        on(line, guides, good=(str(good),), bad=(str(bad),))


def test_the_same_photos_in_another_folder_are_the_same_request(
    line, guides, good, tmp_path, capsys
):
    config = CalibrateConfig(name="line-3")
    saved = on(line, guides, good=(str(good),), config=config)
    shutil.copytree(good, tmp_path / "moved")

    assert on(line, guides, good=(str(tmp_path / "moved/*.png"),), config=config) == saved
    assert "the threshold line-3 is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"good": ("a",), "dataset": "b"}, "--good and --dataset"),
        ({"bad": ("a",)}, "--bad stands beside --good"),
        ({"split": "train"}, "name the --dataset"),
        ({"weights": ("w",)}, "--weights is for the images of --good"),
        ({"good": ("a",), "category": ("b", "c")}, "--category is b,c; the parts of --good are of"),
    ],
)
def test_images_are_of_one_place(options, message):
    with pytest.raises(OptionsDisagree, match=message):
        CalibrateSource(guides="g", **options)


def test_the_command_and_the_notebook_say_what_was_chosen(line, guides, good, category):
    store = str(line / "store")
    arguments = ["calibrate", "--guides", guides.path, "--store", store, "--good", str(good)]
    shown = CliRunner().invoke(app, [*arguments, "--name", "line-3"])
    found = CliRunner().invoke(app, [*arguments, "--name", "line-3", "--json"])
    other = CliRunner().invoke(app, [*arguments, "--name", "line-3", "--confidence", "0.9"])
    made = spg_pipe.calibrate(store, guides=guides.path, good=good, name="line-4", rate=0.5)

    assert "line-3, calibrated on 8 good parts: at most 31.3% false alarms" in shown.stdout
    assert "flags 0 of 8 good ones, which score 0." in shown.stdout
    result = json.loads(found.stdout)
    assert result["threshold"] == load_threshold(guides, "line-3").threshold
    assert result["asked"]["confidence"] == 0.95
    assert (other.exit_code, made.name) == (1, "line-4")
    assert "has the threshold line-3, calibrated on 8" in str(other.exception)
    with pytest.raises(OptionsDisagree, match="--per-category is for the categories of a dataset"):
        spg_pipe.calibrate(store, guides=guides.path, good=good, per_category=True)


def test_calibrations_that_race_for_a_name_never_pair_a_threshold_with_anothers_parts(
    line, guides, good, bad, monkeypatch
):
    others = CalibrateSource(guides=guides.id, good=(str(good), str(bad)))
    config, store = CalibrateConfig(replace=True), open_store(line / "store")
    inner = []

    def another_first(*arguments):
        """Between this one's good parts and its threshold, another one comes and goes."""
        kept = save_familiar(*arguments)
        if not inner:
            inner.append(True)
            calibrate(store, guides, ScoreConfig(), others, config)
        return kept

    monkeypatch.setattr("pipeline.calibration.calibrate.save_familiar", another_first)
    mine = on(line, guides, good=(str(good),))

    saved = load_threshold(guides, "default")
    assert saved == mine
    assert load_familiar(guides.place, saved).images == saved.chosen[0].measured.n_normal == N_GOOD
    theirs = calibrate(store, guides, ScoreConfig(), others, config)
    found = choose_familiar(guides, choose_threshold(guides, ScoreConfig()).saved)
    assert found.images == theirs.chosen[0].measured.n_normal == N_GOOD + 2


def test_calibrating_anew_leaves_nothing_of_what_it_replaced(line, guides, good):
    on(line, guides, good=(str(good),))
    first, *_ = kept = list((Path(guides.path) / "familiar").iterdir())
    max(good.iterdir()).unlink()
    on(line, guides, good=(str(good),))

    assert len(kept) == len(list(first.parent.iterdir())) == 1
    assert not first.exists()
    two = [str(path) for path in sorted(good.iterdir())[:2]]  # too few to know the like of
    on(line, guides, good=tuple(two), config=CalibrateConfig(rate=0.9, replace=True))
    assert not first.parent.exists()
    assert load_threshold(guides, "default").familiar is None


def test_the_remedy_for_several_categories_of_own_parts_works(line, guides):
    with pytest.raises(OptionsDisagree, match="--good FOLDER/NAME --category NAME --name NAME"):
        on(line, guides, good=("photos",), config=CalibrateConfig(per_category=True))
    folders = [path for path in sorted((line / "images/target").iterdir()) if path.is_dir()][:2]
    saved = [
        on(
            line,
            guides,
            good=(str(one / "train/good"),),
            category=(one.name,),
            config=CalibrateConfig(name=one.name),
        )
        for one in folders
    ]

    for one, its in zip(folders, saved, strict=True):
        assert choose_threshold(guides, ScoreConfig(), category=one.name).saved == its


# --- memories and combinations --------------------------------------------------------------------


def test_a_memory_is_calibrated_on_good_parts_but_not_on_its_own(
    line, memory, good, category, capsys
):
    saved = on(
        line, memory, good=(str(good),), category=(category,), config=CalibrateConfig(rate=0.6)
    )

    assert saved.chosen[0].measured.n_normal == N_GOOD - 4
    assert saved.chosen[0].measured.normal_scores[0] > 0
    assert "4 of --good are in the memory itself and left out" in capsys.readouterr().err
    [one] = predict(
        memory,
        find_images([str(min(good.iterdir()))]),
        ScoreConfig(),
        PredictConfig(category=category),
    )
    assert one.threshold == saved.threshold


def test_a_memorys_own_images_alone_are_refused_and_so_are_bad_ones(line, memory, good, category):
    held = set(memory.document.categories[category].images)
    for path in good.iterdir():
        if hashlib.sha256(path.read_bytes()).hexdigest() not in held:
            path.unlink()

    with pytest.raises(
        DatasetError, match=r"no image of --good is left of 4: all are in the memory"
    ):
        on(line, memory, good=(str(good),), category=(category,))
    other = str(min((line / "images/target").rglob("test/good/*.png")))
    with pytest.raises(DatasetError, match="holds images of --bad as normal"):
        on(line, memory, good=(other,), bad=(str(good),), category=(category,))


def test_a_cached_dataset_serves_a_memory_category_by_category(line, memory, capsys):
    config = CalibrateConfig(rate=0.6, per_category=True, name="cached")
    saved = on(line, memory, dataset="parts", config=config)

    assert {one.category for one in saved.chosen} == set(memory.document.categories)
    assert all(one.measured.n_normal == N_GOOD - 4 for one in saved.chosen)
    assert "images are in the memory itself and left out" in capsys.readouterr().err


def test_a_memory_has_no_auxiliary_images_and_its_remedy_is_one_that_works(line, memory, good):
    with pytest.raises(ArtifactError, match="calibrate it on parts of its own product: --good"):
        on(line, memory)
    reason = choose_threshold(memory, ScoreConfig(pool="top:0.5")).reason
    assert f"calibrate --guides {memory.id} --good FOLDER --category NAME`" in reason


def test_a_combination_with_a_memory_is_calibrated_too(line, small_store, memory, good, category):
    store = open_store(line / "store")
    made = combine(store, [small_store.guides.id, memory.id], CombineConfig(scale="none"))

    saved = on(
        line, made, good=(str(good),), category=(category,), config=CalibrateConfig(rate=0.6)
    )

    assert saved.chosen[0].measured.n_normal == N_GOOD - 4
    assert choose_threshold(made, ScoreConfig()).value == saved.threshold
    with pytest.raises(ArtifactError, match="holds a memory, which no auxiliary product"):
        on(line, made)


# --- cached datasets ------------------------------------------------------------------------------


def test_cached_and_own_images_give_the_same_threshold(line, guides, good, category):
    own = on(line, guides, good=(str(good),))
    cached = on(line, guides, dataset="parts", category=(category,))

    assert cached.chosen[0].measured.n_normal == N_GOOD
    assert cached.threshold == pytest.approx(own.threshold, abs=1e-5)
    with pytest.raises(ConfigError, match="no such images of the split test"):
        on(line, guides, dataset="parts", split="test")
