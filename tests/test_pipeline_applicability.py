"""Whether a detector applies: checks of the picture, own good parts, and the verdict unsure."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import spg_pipe
from cache.store import open_store
from manifests.images import open_image
from pipeline.artifacts import load_artifact
from pipeline.calibration.calibrate import calibrate
from pipeline.commands.tally import Tally
from pipeline.configs import CalibrateConfig, CalibrateSource, PredictConfig, ScoreConfig
from pipeline.extraction.extract import extract
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.prediction.familiar import Familiar, Learner, doubts_of
from pipeline.prediction.familiar_file import file_of, load_familiar
from pipeline.prediction.inputs import find_images
from pipeline.prediction.look import look_of, problems_of
from pipeline.prediction.predict import Prediction, predict
from pipeline.prediction.threshold import Threshold, load_threshold
from pipeline.prediction.verdict import decide
from pipeline.registry.transfer import transfer
from pipeline.registry.verify import verify_some
from pipeline.sample.shot import SampleConfig
from pipeline.sample.write import write_sample
from spg_core.errors import CorruptStore
from tests.small_store import GUIDES, SAE, extract_config

# --- pictures -------------------------------------------------------------------------------------


def noise(side=300, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def scene(size=(300, 300)):
    """Draw a picture with a few things on a ground that is not of one colour."""
    width, height = size
    ramp = np.linspace(60, 200, width).astype(np.uint8)
    picture = Image.fromarray(np.repeat(np.tile(ramp, (height, 1))[..., None], 3, axis=2))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((width // 4, height // 4, width // 2, height // 2), fill=(180, 40, 30))
    return picture


def text(side):
    """Draw a page of letters."""
    page = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(page)
    for top in range(2, side, 12):
        pen.text((2, top), "lorem ipsum dolor sit amet"[top // 12 :], fill="black")
    return page


@pytest.mark.parametrize(
    ("picture", "problems"),
    [
        (scene(), set()),
        (scene((400, 300)), set()),
        (scene((1600, 900)), set()),
        (scene((2000, 200)), {"aspect"}),
        (scene((200, 2000)), {"aspect"}),
        (scene((20, 20)), {"small"}),
        (Image.new("RGB", (300, 300), (128, 128, 128)), {"flat"}),
        (Image.new("RGB", (300, 300), (255, 255, 255)), {"flat", "white"}),
        (Image.new("RGB", (300, 300)), {"flat", "black"}),
        (noise(), {"noise"}),
        (noise().resize((1200, 1200)), {"noise"}),
        (Image.blend(Image.new("RGB", (300, 300), (99, 99, 99)), noise(), 0.05), {"flat", "noise"}),
    ],
)
def test_pictures_that_show_nothing_are_named(picture, problems):
    assert set(problems_of(look_of(picture))) == problems


def test_a_shape_is_strange_beside_the_shapes_that_are_known():
    strip = look_of(scene((800, 200)))

    assert problems_of(strip).keys() == {"aspect"}
    assert not problems_of(strip, [3.0, 4.5], 1.25)
    assert problems_of(look_of(scene()), [3.0, 4.5], 1.25).keys() == {"aspect"}


def test_a_dark_and_a_bright_photo_are_no_problem():
    values = np.asarray(scene(), np.float64)
    for factor, base in ((0.1, 0), (0.1, 225)):
        photo = Image.fromarray((values * factor + base).astype(np.uint8))
        assert not problems_of(look_of(photo))


def upright_and_turned(folder):
    """Save a photo as it lies, and with the tag by which a phone says that it lies on its side."""
    tag = Image.Exif()
    tag[0x0112] = 6
    scene().save(folder / "upright.jpg")
    scene().save(folder / "turned.jpg", exif=tag)
    return [folder / "upright.jpg", folder / "turned.jpg"]


def test_a_turned_photo_is_strange_only_beside_good_parts_that_lay_upright(tmp_path):
    upright, turned = (look_of(open_image(one)) for one in upright_and_turned(tmp_path))
    both = look_of(open_image(tmp_path / "turned.jpg", exif=True))

    assert [one.turned for one in (upright, turned, both)] == [False, True, False]
    [doubt] = doubts_of(turned, 0.9, learned())
    assert "is to be turned, which this detector does not do: `extract --exif`" in doubt
    assert not doubts_of(upright, 0.9, learned())
    assert not doubts_of(turned, 0.9, learned(looks=[turned, upright] * 3))
    assert not doubts_of(turned, 0.9, learned(looks=[None] * 5))  # of a cache
    assert not doubts_of(turned, None, None)


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "doubts", "verdict", "reason"),
    [
        (0.4, [], "normal", None),
        (0.6, [], "anomalous", None),
        (0.4, ["it is odd"], "unsure", "it is odd"),
        (0.6, ["it is odd", "and more"], "anomalous", "it is odd; and more"),
    ],
)
def test_doubt_takes_away_normal_and_leaves_anomalous(score, doubts, verdict, reason):
    assert decide(score, Threshold(0.5, "given"), doubts) == (verdict, reason)


def test_doubt_is_said_where_there_is_no_threshold():
    none = Threshold(None, None, "no threshold")

    assert decide(0.4, none, []) == (None, "no threshold")
    assert decide(0.4, none, ["it is odd"]) == ("unsure", "it is odd; no threshold")


def test_the_summary_gives_the_missing_threshold_as_reason_and_not_one_pictures_doubt():
    tally = Tally()
    tally.add(Prediction(path="a", score=0.4, verdict="unsure", reason="it is odd; no threshold"))
    alone = tally.told()
    tally.add(Prediction(path="b", score=0.4, reason="no threshold"))

    assert "; no verdict, 1 unsure; " in alone
    assert "; no verdict, 1 unsure, no threshold; " in tally.told()


# --- good parts -----------------------------------------------------------------------------------


def learned(n=5, pictures=None, looks=None):
    learner = Learner()
    generator = torch.Generator().manual_seed(0)
    for at in range(n):
        picture = pictures[at] if pictures else scene()
        tokens = torch.eye(8) + 0.05 * torch.randn(8, 8, generator=generator)
        look = look_of(picture) if looks is None else looks[at]
        learner.add(tokens, picture.width / picture.height, look)
    return learner.familiar("default")


def test_a_check_that_good_parts_fail_themselves_is_waived():
    dark = Image.new("RGB", (300, 300))
    known = learned(pictures=[scene(), dark, scene(), scene(), scene()])

    assert known.waived == {"flat", "black"}
    assert not doubts_of(look_of(dark), 0.9, known)
    assert doubts_of(look_of(dark), 0.9, learned())


def test_an_image_far_from_the_good_parts_is_told_how_far():
    [doubt] = doubts_of(look_of(scene()), 0.25, learned())

    assert doubt.startswith("it is unlike the good parts of default: 3.0 times")
    assert not doubts_of(look_of(scene()), 0.5, learned())


def test_parts_that_lie_alike_leave_a_later_one_familiar():
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(1024, 64, generator=generator)
    learner = Learner()

    def part():
        return places + 0.3 * torch.randn(1024, 64, generator=generator)

    for _ in range(8):
        learner.add(part(), 1.0)
    known = learner.familiar("aligned")

    # only a quarter of each one's patches is kept, others in each
    assert all(one > 0.5 for one in known.applicability(torch.stack([part() for _ in range(5)])))


def test_what_is_kept_is_bounded_however_many_parts_there_are():
    learner = Learner()
    for _ in range(300):
        learner.add(torch.randn(1024, 4), 1.0)

    made = learner.familiar("many")

    assert made.images == 300
    assert len(made.tokens) == 4096
    assert made.tokens.dtype == torch.float16


# --- with a detector ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Good images of one category."""
    place = tmp_path_factory.mktemp("good")
    write_sample(
        place, SampleConfig(image_size=96, images_per_category=2, train_images_per_category=9)
    )
    folder = min(path for path in (place / "target").iterdir() if path.is_dir())
    return sorted(map(str, folder.glob("train/good/*")))


@pytest.fixture(scope="module")
def calibrated(small_store, good, tmp_path_factory):
    """The guides, elsewhere, calibrated on all good images of a category but the last."""
    folder = tmp_path_factory.mktemp("calibrated") / "guides" / small_store.guides.id
    shutil.copytree(small_store.guides.path, folder)
    store = open_store(folder.parents[1])
    guides = load_artifact(store, "guides", small_store.guides.id)
    source = CalibrateSource(guides=guides.id, good=tuple(good[:-1]))
    calibrate(store, guides, ScoreConfig(), source, CalibrateConfig())
    return guides


def familiar_of(guides, name="default"):
    return load_familiar(guides.place, load_threshold(guides, name))


def give_good_parts(calibrated, guides):
    """Lay what a calibration wrote into another store."""
    for folder in ("thresholds", "familiar"):
        shutil.copytree(Path(calibrated.path) / folder, Path(guides.path) / folder)


def judged(guides, *paths, **config):
    listed = find_images([str(path) for path in paths])
    return list(predict(guides, listed, ScoreConfig(), PredictConfig(**config)))


@pytest.fixture
def absurd(tmp_path):
    """Pictures that are no such part."""
    pictures = {
        "grey": Image.new("RGB", (96, 96), (128, 128, 128)),
        "noise": noise(96),
        "strip": scene((2000, 200)),
        "text": text(96),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in pictures]


def test_no_absurd_image_is_normal_and_good_parts_are(calibrated, good, absurd):
    # a threshold that no score reaches: the score alone would call all of them normal
    found = judged(calibrated, *good, *absurd, threshold=1.0)

    assert [one.verdict for one in found] == ["normal"] * len(good) + ["unsure"] * len(absurd)
    assert all(one.applicability > 0.5 for one in found[: len(good)])
    assert found[-1].applicability < 0.5
    assert "unlike the good parts" in found[-1].reason


def test_anomalous_stays_with_the_doubt_beside_it(calibrated, absurd):
    [grey] = judged(calibrated, absurd[0], threshold=0.0)

    assert grey.verdict == "anomalous"
    assert "it is of one colour" in grey.reason


def test_without_own_parts_only_the_picture_is_checked(small_store, absurd):
    found = judged(small_store.guides, *absurd, threshold=1.0)

    assert [one.verdict for one in found] == ["unsure", "unsure", "unsure", "normal"]
    assert all(one.applicability is None for one in found)


def test_without_own_parts_a_shape_is_strange_beside_those_of_the_auxiliary_images(
    small_store, absurd, tmp_path
):
    strip = absurd[2]
    shutil.copytree(small_store.images, tmp_path / "images")
    for path in (tmp_path / "images/auxiliary").rglob("*.*"):
        if path.suffix != ".csv":
            with Image.open(path) as picture:
                wide = picture.resize((480, 64), Image.Resampling.NEAREST)
            wide.save(path)
    store = open_store(tmp_path / "store")
    extract(store, extract_config(tmp_path / "images", "aux"))
    guides = fit_guides(store, fit_sae(store, open_dataset(store, "aux", "gabor"), SAE).id, GUIDES)

    assert [one.verdict for one in judged(guides, strip, threshold=1.0)] == ["normal"]
    [square] = judged(guides, absurd[3], threshold=1.0)
    assert (square.verdict, "far from the shape" in square.reason) == ("unsure", True)
    assert [one.verdict for one in judged(small_store.guides, strip, threshold=1.0)] == ["unsure"]


def test_applicability_needs_no_threshold_of_these_scores(calibrated, good):
    [one] = list(
        predict(calibrated, find_images(good[-1:]), ScoreConfig(sigma=1.0), PredictConfig())
    )

    assert one.verdict is None
    assert one.applicability > 0.5
    assert one.threshold is None


def test_good_parts_go_with_their_detector(small_store, calibrated, absurd, tmp_path):
    source, target = open_store(tmp_path / "source"), open_store(tmp_path / "target")
    shutil.copytree(small_store.url, tmp_path / "source", dirs_exist_ok=True)
    here = load_artifact(source, "guides", small_store.guides.id)
    give_good_parts(calibrated, here)

    transfer(source, target, f"guides/{here.id}", with_tokens=False, threads=1)

    there = load_artifact(target, "guides", here.id)
    assert familiar_of(there).images == 8
    [one], [other] = judged(calibrated, absurd[-1]), judged(there, absurd[-1])
    assert one.applicability == other.applicability


def test_a_torn_file_of_good_parts_is_found_and_refused(small_store, calibrated, tmp_path):
    shutil.copytree(small_store.url, tmp_path / "store")
    store = open_store(tmp_path / "store")
    guides = load_artifact(store, "guides", small_store.guides.id)
    give_good_parts(calibrated, guides)
    assert not verify_some(store, [f"guides/{guides.id}"])[0].problems
    path = Path(guides.path) / file_of(load_threshold(guides, "default").familiar)
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[-10] ^= 1
    for data in (whole[:-10], bytes(spoilt)):
        path.write_bytes(data)

        with pytest.raises(CorruptStore, match=r"\.safetensors is torn.*calibrate again"):
            judged(guides, small_store.images)

        [problem] = verify_some(store, [f"guides/{guides.id}"])[0].problems
        assert problem.object.endswith(path.name)


def test_good_parts_that_went_missing_are_no_silent_none(small_store, calibrated, tmp_path):
    shutil.copytree(small_store.url, tmp_path / "store")
    store = open_store(tmp_path / "store")
    guides = load_artifact(store, "guides", small_store.guides.id)
    give_good_parts(calibrated, guides)
    shutil.rmtree(Path(guides.path) / "familiar")

    with pytest.raises(CorruptStore, match="the good parts of the threshold default, is not there"):
        judged(guides, small_store.images)
    assert len(verify_some(store, [f"guides/{guides.id}"])[0].problems) == 1


def test_good_parts_of_another_detector_are_refused(calibrated, tmp_path):
    copy = tmp_path / "guides" / calibrated.id
    shutil.copytree(calibrated.path, copy)
    note = json.loads((copy / "thresholds/default.json").read_text())
    (copy / "thresholds/other.json").write_text(json.dumps(note | {"name": "other"}))
    guides = load_artifact(open_store(tmp_path), "guides", calibrated.id)

    with pytest.raises(CorruptStore, match="expected 'other'"):
        familiar_of(guides, "other")


def test_familiar_moves_to_where_the_tokens_are(calibrated):
    known = familiar_of(calibrated)

    assert isinstance(known, Familiar)
    [same] = known.applicability(known.tokens[None])
    assert same == pytest.approx(1.0, abs=1e-3)


def test_score_says_how_many_images_are_unlike_the_good_parts(
    small_store, calibrated, good, tmp_path, capsys
):
    shutil.copytree(small_store.url, tmp_path / "store")
    guides = load_artifact(open_store(tmp_path / "store"), "guides", small_store.guides.id)
    ask = {"guides": guides.id, "dataset": "target"}
    spg_pipe.score(tmp_path / "store", **ask)
    assert "unlike" not in capsys.readouterr().err

    give_good_parts(calibrated, guides)
    spg_pipe.score(tmp_path / "store", **ask)

    told = " ".join(capsys.readouterr().err.split())
    data = open_dataset(open_store(tmp_path / "store"), "target", "gabor")
    paths = [str(small_store.images / "target" / one) for one in data.manifest.column("image_path")]
    unlike = Counter(
        category
        for category, one in zip(
            data.manifest.column("category"), judged(guides, *paths), strict=True
        )
        if one.applicability < 0.5
    )
    sizes = Counter(data.manifest.column("category"))
    assert unlike
    assert "unlike the good parts of default" in told
    assert all(f"{n} of {sizes[category]} of {category}" in told for category, n in unlike.items())
