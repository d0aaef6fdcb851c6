"""From files on disk to a checked manifest."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.build import BuiltManifest, build_manifest, fingerprint_files
from manifests.examine import Examined, examine
from manifests.lists import Entry
from manifests.problems import Layout
from manifests.table import manifest_from_bytes, manifest_to_bytes
from spg_core.errors import ConfigError, DatasetError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_samples = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared real samples (mvtec/, surface/) are not on this machine"
)


def write_image(root: Path, path: str, seed: int, height: int = 6, width: int = 9) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / path)


def write_mask(root: Path, path: str, n_pixels: int, height: int = 6, width: int = 9) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(height * width, dtype=np.uint8)
    mask[:n_pixels] = 255
    Image.fromarray(mask.reshape(height, width)).save(root / path)


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """Two categories, each with two good and one defective test image of 9 x 6 pixels."""
    root = tmp_path / "set"
    for offset, category in enumerate(("bolt", "nut")):
        write_image(root, f"{category}/train/good/0.png", 90 + offset)
        write_image(root, f"{category}/test/good/0.png", 10 * offset)
        write_image(root, f"{category}/test/good/1.png", 10 * offset + 1)
        write_image(root, f"{category}/test/cut/0.png", 10 * offset + 2)
        write_mask(root, f"{category}/ground_truth/cut/0_mask.png", 4 + offset)
    return root


def build(root: Path, layout: Layout = "mvtec", split: str = "test") -> BuiltManifest:
    return build_manifest(root, layout=layout, dataset="shop", split=split, workers=2)


def errors_of(root: Path, layout: Layout = "mvtec") -> str:
    with pytest.raises(DatasetError) as caught:
        build(root, layout)
    return str(caught.value)


def test_a_row_says_what_is_true_of_its_image(mvtec: Path) -> None:
    built = build(mvtec)

    image, mask = "bolt/test/cut/0.png", "bolt/ground_truth/cut/0_mask.png"
    assert built.warnings == ()
    assert built.manifest.n_images == 6
    assert built.manifest.table.to_pylist()[0] == {
        "image_id": hashlib.sha256((mvtec / image).read_bytes()).hexdigest(),
        "dataset": "shop",
        "category": "bolt",
        "split": "test",
        "defect": "cut",
        "label": 1,
        "image_path": image,
        "mask_path": mask,
        "mask_id": hashlib.sha256((mvtec / mask).read_bytes()).hexdigest(),
        "width": 9,
        "height": 6,
        "mask_pixels": 4,
        "row": 0,
    }


def test_what_is_built_passes_the_check_of_foreign_manifests(mvtec: Path) -> None:
    made = build(mvtec, split="all").manifest

    assert manifest_from_bytes(manifest_to_bytes(made), "m").table.equals(made.table)


def test_place_workers_and_times_do_not_change_the_manifest(mvtec: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(mvtec, copy)
    os.utime(copy / "bolt/test/good/0.png", (1, 1))

    one = build_manifest(mvtec, layout="mvtec", dataset="shop", split="test", workers=1)
    four = build_manifest(copy, layout="mvtec", dataset="shop", split="test", workers=4)

    assert manifest_to_bytes(one.manifest) == manifest_to_bytes(four.manifest)


def test_progress_is_told_after_every_image(mvtec: Path) -> None:
    told: list[tuple[int, int]] = []

    build_manifest(
        mvtec,
        layout="mvtec",
        dataset="shop",
        split="test",
        workers=3,
        progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(done, 6) for done in range(1, 7)]


def test_an_interrupt_leaves_most_images_undone(
    mvtec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        shutil.copy(mvtec / "bolt/test/good/0.png", mvtec / f"bolt/test/good/x{number}.png")
    examined = []

    def slowly(entry: Entry, *, keep: None, **more: Any) -> Examined:
        examined.append(entry)
        time.sleep(0.01)
        return examine(entry, keep=keep, **more)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("manifests.build.examine", slowly)
    with pytest.raises(KeyboardInterrupt):
        build_manifest(
            mvtec, layout="mvtec", dataset="d", split="test", workers=1, progress=interrupt
        )

    assert 1 <= len(examined) < 50


def test_thumbnails_are_a_column_when_asked_for(mvtec: Path) -> None:
    built = build_manifest(
        mvtec, layout="mvtec", dataset="d", split="test", workers=2, thumbnails=True
    )

    assert built.manifest.has_thumbnails
    pictures = built.manifest.column("thumbnail")
    assert all(isinstance(picture, bytes) and picture[:2] == b"\xff\xd8" for picture in pictures)
    assert manifest_from_bytes(manifest_to_bytes(built.manifest), "m").has_thumbnails


def test_every_problem_is_told_at_once_with_its_file(mvtec: Path) -> None:
    good = mvtec / "bolt/test/good/0.png"
    good.write_bytes(good.read_bytes()[:60])
    (mvtec / "bolt/test/good/1.png").write_bytes(b"")
    (mvtec / "bolt/test/cut/text.png").write_text("hello")
    write_image(mvtec, "nut/test/cut/lonely.png", 50)
    write_mask(mvtec, "nut/ground_truth/cut/0_mask.png", 3, height=9, width=6)
    write_mask(mvtec, "nut/ground_truth/good/1.png", 3)
    write_mask(mvtec, "nut/ground_truth/cut/orphan_mask.png", 3)
    (mvtec / "nut/test/good/loop").symlink_to("..")

    text = errors_of(mvtec)

    assert text.splitlines()[0] == (f"8 problems in {mvtec} (layout mvtec); no manifest was made")
    for line in (
        "  undecodable (3):",
        "    bolt/test/good/0.png: cannot be decoded (",
        "    bolt/test/good/1.png: the file is empty (0 bytes)",
        "    bolt/test/cut/text.png: cannot be decoded (not an image of a known format)",
        "  defective image without a mask (2):",
        "    bolt/test/cut/text.png",
        "    nut/test/cut/lonely.png",
        "  mask of another size than its image (1):",
        "    nut/ground_truth/cut/0_mask.png: 6 x 9 pixels, its image 9 x 6",
        "  good image whose mask is not empty (1):",
        "    nut/ground_truth/good/1.png: 3 anomalous pixels, but nut/test/good/1.png is listed",
        "  symlink loop (1):",
        "    nut/test/good/loop: it leads back to a folder above it",
        "  also: 1 x mask without an image: nut/ground_truth/cut/orphan_mask.png",
    ):
        assert line in text


def test_a_broken_mask_is_named(mvtec: Path) -> None:
    (mvtec / "bolt/ground_truth/cut/0_mask.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    text = errors_of(mvtec)

    assert "1 problem in" in text
    assert "    bolt/ground_truth/cut/0_mask.png: cannot be decoded (" in text


def test_an_empty_mask_of_a_defective_image_is_a_counted_warning(mvtec: Path) -> None:
    write_mask(mvtec, "bolt/ground_truth/cut/0_mask.png", 0)

    built = build(mvtec)

    assert built.warnings == (
        "1 x defective image whose mask is empty: bolt/ground_truth/cut/0_mask.png",
    )
    assert built.manifest.column("mask_pixels")[0] == 0
    assert built.manifest.labels[0] == 1


def test_an_empty_mask_of_a_good_image_is_fine(mvtec: Path) -> None:
    write_mask(mvtec, "bolt/ground_truth/good/0.png", 0)

    assert build(mvtec).warnings == ()


def test_duplicate_bytes_are_a_counted_warning(mvtec: Path) -> None:
    shutil.copy(mvtec / "bolt/test/good/0.png", mvtec / "bolt/test/good/2.png")
    shutil.copy(mvtec / "bolt/test/good/0.png", mvtec / "bolt/test/good/3.png")
    shutil.copy(mvtec / "bolt/test/cut/0.png", mvtec / "nut/test/good/4.png")

    built = build(mvtec)

    assert built.warnings == (
        "2 x image with the bytes of an earlier one: "
        "bolt/test/good/2.png: same bytes as bolt/test/good/0.png; "
        "bolt/test/good/3.png: same bytes as bolt/test/good/0.png",
        "1 x image with the bytes of one that has another label: "
        "nut/test/good/4.png: same bytes as bolt/test/cut/0.png",
    )
    assert built.manifest.n_images == 9


def test_a_long_warning_keeps_its_count(mvtec: Path) -> None:
    for number in range(30):
        shutil.copy(mvtec / "bolt/test/good/0.png", mvtec / f"bolt/test/good/d{number:02}.png")

    (warning,) = build(mvtec).warnings

    assert warning.startswith("30 x image with the bytes")
    assert warning.endswith("; and 10 more")


def test_names_on_disk_cannot_write_to_the_terminal(mvtec: Path) -> None:
    write_image(mvtec, "bolt/test/good/\x1b[31mred.png", 60)
    with open(os.fsencode(mvtec) + b"/bolt/test/good/\xff\xfe.png", "wb"):  # noqa: PTH123 (bytes)
        pass

    text = errors_of(mvtec)

    assert "\x1b" not in text
    assert "bolt/test/good/\\x1b[31mred.png: the path holds a control character" in text
    assert "bolt/test/good/\\udcff\\udcfe.png: the path is not UTF-8" in text


def test_a_missing_mask_is_a_warning_for_meta_and_nothing_for_a_folder_without_masks(
    tmp_path: Path,
) -> None:
    write_image(tmp_path, "good/0.png", 0)
    write_image(tmp_path, "dent/1.png", 1)
    entries = '{"img_path": "dent/1.png", "mask_path": "", "specie_name": "dent", "anomaly": 1}'
    (tmp_path / "meta.json").write_text(f'{{"test": {{"shop": [{entries}]}}}}')

    assert build(tmp_path, "folder").warnings == ()
    assert build(tmp_path, "meta").warnings == ("1 x defective image without a mask: dent/1.png",)


def test_a_missing_mask_is_an_error_in_visa(tmp_path: Path) -> None:
    write_image(tmp_path, "nut/1.png", 1)
    (tmp_path / "split_csv").mkdir()
    lines = "object,split,label,image,mask\nnut,test,anomaly,nut/1.png,\n"
    (tmp_path / "split_csv/1cls.csv").write_text(lines)

    assert "defective image without a mask (1):\n    nut/1.png" in errors_of(tmp_path, "visa")


def test_the_mask_settles_the_label_of_unsorted_images(tmp_path: Path) -> None:
    for number, n_pixels in enumerate((0, 5, 0)):
        write_image(tmp_path, f"images/{number}.png", number)
        write_mask(tmp_path, f"masks/{number}.png", n_pixels)

    made = build(tmp_path, "folder").manifest

    assert made.column("defect") == ["defect", "good", "good"]
    assert made.column("image_path") == ["images/1.png", "images/0.png", "images/2.png"]
    assert made.labels.tolist() == [1, 0, 0]
    assert made.categories == ("shop",)


def test_masks_must_fit_the_turned_image_when_exif_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 6)).save(tmp_path / "images/0.png", exif=exif)
    write_mask(tmp_path, "masks/0.png", 5, height=9, width=6)

    built = build_manifest(
        tmp_path, layout="folder", dataset="d", split="test", workers=1, exif=True
    )

    row = built.manifest.table.to_pylist()[0]
    assert (row["width"], row["height"]) == (6, 9)
    assert "6 x 9 pixels, its image 9 x 6" in errors_of(tmp_path, "folder")


@pytest.mark.parametrize("layout", ["mvtec", "visa", "folder", "meta"])
def test_a_folder_without_images_is_refused(tmp_path: Path, layout: Layout) -> None:
    assert f"no images (1):\n    .: none in split test of layout {layout}" in errors_of(
        tmp_path, layout
    )


def test_wrong_usage_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    def attempt(**changes: object) -> None:
        options = {"layout": "mvtec", "dataset": "d", "split": "test", "workers": 1, **changes}
        build_manifest(tmp_path, **options)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="unknown layout 'coco'; expected one of mvtec, visa"):
        attempt(layout="coco")
    with pytest.raises(ConfigError, match="unknown split 'val'"):
        attempt(split="val")
    with pytest.raises(ConfigError, match="workers must be 1 or more, got 0"):
        attempt(workers=0)
    for name in ("../up", "a b", "", "-x", "a/b", "x" * 65, "a\n"):
        with pytest.raises(ConfigError, match="is unfit for a folder"):
            attempt(dataset=name)


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="gone: no such folder; --root names the folder"):
        build(tmp_path / "gone")


def test_a_fingerprint_changes_with_every_touch_and_only_then(mvtec: Path) -> None:
    before = fingerprint_files(mvtec, "mvtec", "test")

    assert len(before) == 64
    assert fingerprint_files(mvtec, "mvtec", "test") == before
    assert fingerprint_files(mvtec, "mvtec", "all") != before
    seen = {before}
    mask = mvtec / "bolt/ground_truth/cut/0_mask.png"
    os.utime(mask, ns=(5, mask.stat().st_mtime_ns + 1))
    seen.add(fingerprint_files(mvtec, "mvtec", "test"))
    (mvtec / "nut/test/good/1.png").rename(mvtec / "nut/test/good/2.png")
    seen.add(fingerprint_files(mvtec, "mvtec", "test"))
    mask.unlink()
    seen.add(fingerprint_files(mvtec, "mvtec", "test"))
    assert len(seen) == 4


def test_a_fingerprint_of_a_broken_listing_is_refused(mvtec: Path) -> None:
    (mvtec / "bolt/test/up").symlink_to("..")

    with pytest.raises(DatasetError, match="symlink loop"):
        fingerprint_files(mvtec, "mvtec", "test")


@needs_samples
def test_the_real_mvtec_sample_has_its_counts() -> None:
    built = build(SHARED / "mvtec")

    made = built.manifest
    counts = {name: np.bincount(made.labels[made.rows_of(name)]) for name in made.categories}
    assert {name: count.tolist() for name, count in counts.items()} == {
        "bottle": [10, 24],
        "screw": [10, 25],
    }
    assert built.warnings == ()
    assert set(made.column("width")) == {900, 1024}
    assert min(np.asarray(made.column("mask_pixels"))[made.labels == 1]) > 0


@needs_samples
def test_the_real_visa_sample_has_its_counts() -> None:
    made = build(SHARED / "surface", "visa", "all").manifest

    split, label = np.array(made.column("split")), made.labels
    counts = {
        name: [
            int((split[made.rows_of(name)] == "train").sum()),
            int((label[made.rows_of(name)] == 0).sum()),
            int((label[made.rows_of(name)] == 1).sum()),
        ]
        for name in made.categories
    }
    assert counts == {"commutator": [10, 40, 20], "magnetic_tile": [20, 80, 60]}
    assert np.asarray(made.column("mask_pixels"))[label == 1].min() > 0
