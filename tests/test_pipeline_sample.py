"""pipeline.sample: layouts on disk, masks, determinism, refusals."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.sample.defects import DEFECTS, visible_mask
from pipeline.sample.scene import Light, Scene, paint, render
from pipeline.sample.shot import AUXILIARY, TARGET, Product, SampleConfig, draw_shot
from pipeline.sample.write import Sample, write_sample
from spg_core.errors import ConfigError, DatasetError

SIZE = 96
SMALL = SampleConfig(image_size=SIZE, images_per_category=8, train_images_per_category=2)


def _write_small(root: Path, seed: int = 0) -> Sample:
    return write_sample(root, replace(SMALL, seed=seed))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return _write_small(tmp_path_factory.mktemp("sample") / "made")


def _opened(path: Path) -> tuple[str | None, NDArray[np.uint8]]:
    """File format and pixels."""
    with Image.open(path) as image:
        return image.format, np.asarray(image)


def _files(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_flat_surface_under_even_light_keeps_its_colour() -> None:
    flat = np.zeros((8, 8), dtype=np.float32)
    scene = Scene(
        albedo=paint((8, 8), (0.5, 0.25, 0.75)),
        relief=flat,
        gloss=flat,
        body=flat + 1,
        backdrop=paint((8, 8), (0, 0, 0)),
    )
    light = Light(
        direction=(0.0, 0.0, 1.0),
        ambient=0.4,
        gradient=(0.0, 0.0),
        tint=(1.0, 1.0, 1.0),
        blur=0.0,
        noise=0.0,
    )

    image = render(scene, light)

    # Only the vignette is left: 1 - 0.22 r^2 with r^2 = 2 (0.5 / 8)^2 next to the centre.
    vignette = (1 - 0.22 * 2 * (0.5 / 8) ** 2) ** (1 / 2.2)
    np.testing.assert_allclose(image[4, 4], np.array([0.5, 0.25, 0.75]) * vignette, rtol=1e-5)


def test_a_mask_is_what_was_drawn_and_what_changed_nearby() -> None:
    clean = np.zeros((100, 120, 3), dtype=np.float32)
    broken = clean.copy()
    shape = np.zeros((100, 120), dtype=np.float32)
    shape[40:50, 40:50] = 1
    broken[40:50, 40:52, 1] = 0.2
    broken[5:15, 100:110] = 0.2

    mask = visible_mask(clean, broken, shape)

    expected = np.zeros((100, 120), dtype=bool)
    expected[40:50, 40:52] = True
    np.testing.assert_array_equal(mask, expected)


def test_the_auxiliary_tree_is_raw_visa(sample: Sample) -> None:
    root = sample.auxiliary
    with (root / "split_csv" / "1cls.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert list(rows[0]) == ["object", "split", "label", "image", "mask"]
    listed = {row["image"] for row in rows} | {row["mask"] for row in rows if row["mask"]}
    assert listed == {name for name in _files(root) if not name.startswith("split_csv")}
    for product in AUXILIARY:
        mine = [row for row in rows if row["object"] == product.name]
        kinds = [(row["split"], row["label"]) for row in mine]
        assert kinds.count(("train", "normal")) == 2
        assert kinds.count(("test", "normal")) == 4
        assert kinds.count(("test", "anomaly")) == 4
        for row in mine:
            folder = "Anomaly" if row["label"] == "anomaly" else "Normal"
            assert row["image"].startswith(f"{product.name}/Data/Images/{folder}/")
            assert row["image"].endswith(".JPG")
            assert bool(row["mask"]) == (row["label"] == "anomaly")
            if row["mask"]:
                stem = Path(row["image"]).stem
                assert row["mask"] == f"{product.name}/Data/Masks/Anomaly/{stem}.png"


def test_auxiliary_masks_hold_class_ids(sample: Sample) -> None:
    for product in AUXILIARY:
        for index in range(4):
            data = sample.auxiliary / product.name / "Data"
            _, mask = _opened(data / "Masks" / "Anomaly" / f"{index:03d}.png")
            image_format, image = _opened(data / "Images" / "Anomaly" / f"{index:03d}.JPG")

            assert image_format == "JPEG"
            assert image.shape == (*mask.shape, 3)
            assert np.unique(mask).tolist() == [0, index + 1]


def test_the_target_tree_is_mvtec(sample: Sample) -> None:
    root = sample.target
    assert {path.name for path in root.iterdir()} == {product.name for product in TARGET}
    for product in TARGET:
        category = root / product.name
        expected = {f"train/good/{i:03d}.png" for i in range(2)}
        expected |= {f"test/good/{i:03d}.png" for i in range(4)}
        for defect in product.defects:
            expected |= {f"test/{defect}/000.png", f"ground_truth/{defect}/000_mask.png"}
            _, mask = _opened(category / "ground_truth" / defect / "000_mask.png")
            image_format, image = _opened(category / "test" / defect / "000.png")
            assert image_format == "PNG"
            assert image.shape == (*mask.shape, 3)
            assert np.unique(mask).tolist() == [0, 255]
        assert set(_files(category)) == expected


def test_no_category_is_in_both_datasets_and_some_images_are_not_square() -> None:
    names = [product.name for product in (*AUXILIARY, *TARGET)]

    assert len(set(names)) == len(names)
    for products in (AUXILIARY, TARGET):
        shapes = {product.shape(448) for product in products}
        assert any(height != width for height, width in shapes)
        assert (448, 448) in shapes


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_images(
    sample: Sample, tmp_path: Path
) -> None:
    again = _write_small(tmp_path / "again")
    other = _write_small(tmp_path / "other", seed=1)

    first = _files(sample.auxiliary.parent)
    assert _files(again.auxiliary.parent) == first
    changed = _files(other.auxiliary.parent)
    assert changed.keys() == first.keys()
    images = [name for name in first if name.endswith(("JPG", "png")) and "ask" not in name]
    assert all(changed[name] != first[name] for name in images)


def test_every_image_differs_from_every_other(sample: Sample) -> None:
    digests = [
        digest
        for name, digest in _files(sample.auxiliary.parent).items()
        if name.endswith((".JPG", ".png")) and "ask" not in name
    ]

    assert len(digests) == len((*AUXILIARY, *TARGET)) * 10
    assert len(set(digests)) == len(digests)


def test_more_images_a_category_leave_the_first_ones_as_they_are(
    sample: Sample, tmp_path: Path
) -> None:
    more = write_sample(tmp_path / "more", replace(SMALL, images_per_category=10))

    for name, digest in _files(sample.target).items():
        assert _files(more.target)[name] == digest


@pytest.mark.parametrize(
    ("product", "defect"),
    [(product, defect) for product in (*AUXILIARY, *TARGET) for defect in product.defects],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_a_defect_changes_lies_in_its_mask(product: Product, defect: str) -> None:
    shot = draw_shot(product, SMALL, "anomaly", 5, defect)

    change = np.abs(shot.image.astype(int) - shot.clean).max(axis=2)
    # Beyond the mask only the cast shadow of a changed outline moves, within 0.07 units.
    near = ndimage.distance_transform_edt(~shot.mask) <= 0.07 * min(shot.mask.shape)
    assert shot.mask.shape == product.shape(SIZE)
    assert 0 < shot.mask.mean() < 0.25
    assert (change[shot.mask] > 0).mean() > 0.5
    assert (change[~near] <= 1).all()
    assert np.median(change[shot.mask]) > 10 * change[~near].mean()


def test_a_normal_image_has_no_defect() -> None:
    shot = draw_shot(TARGET[2], SMALL, "normal", 0, None)

    assert not shot.mask.any()
    np.testing.assert_array_equal(shot.image, shot.clean)


def test_every_defect_occurs_and_some_occur_in_both_datasets() -> None:
    auxiliary = {defect for product in AUXILIARY for defect in product.defects}
    target = {defect for product in TARGET for defect in product.defects}

    assert auxiliary | target == set(DEFECTS)
    assert auxiliary & target
    assert target - auxiliary


def test_a_complete_sample_is_found_and_not_written_again(sample: Sample) -> None:
    image = sample.target / "capsule" / "test" / "good" / "000.png"
    before = image.stat().st_mtime_ns

    again = _write_small(sample.target.parent)

    assert again == sample
    assert image.stat().st_mtime_ns == before


def test_an_empty_folder_is_filled_and_no_temporary_stays(tmp_path: Path) -> None:
    root = tmp_path / "empty"
    root.mkdir()

    write_sample(
        root, SampleConfig(image_size=64, images_per_category=2, train_images_per_category=1)
    )

    assert {path.name for path in tmp_path.iterdir()} == {"empty"}
    assert json.loads((root / "sample.json").read_text())["image_size"] == 64


def test_a_folder_with_other_things_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(DatasetError, match=r"is not empty and holds no sample\.json"):
        _write_small(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("mine")

    with pytest.raises(DatasetError, match="is a file; name a new or empty folder"):
        _write_small(tmp_path / "sample")


def test_a_sample_with_other_settings_is_refused(sample: Sample) -> None:
    with pytest.raises(ConfigError, match=r"other settings .*\"seed\": 0.*\"seed\": 3"):
        _write_small(sample.target.parent, seed=3)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"image-size is 32; it must be .* 64 to"):
        SampleConfig(image_size=32)
    with pytest.raises(ConfigError, match=r"images-per-category is 1; it must be .* 2 to"):
        SampleConfig(images_per_category=1)
    with pytest.raises(ConfigError, match=r"--seed is -1; it must be a whole number, 0 to"):
        SampleConfig(seed=-1)
