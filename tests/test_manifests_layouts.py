"""Listing the images of a dataset, without opening one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.layouts import list_entries, match_masks
from manifests.lists import Entry
from manifests.problems import Layout, Problem
from spg_core.errors import ConfigError


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def listed(
    root: Path, layout: Layout, split: str = "test"
) -> tuple[list[Entry], list[tuple[str, str]]]:
    problems: list[Problem] = []
    entries = list_entries(root, layout=layout, split=split, dataset="shop", problems=problems)
    return entries, [(problem.kind, problem.path) for problem in problems]


def pairs(entries: Iterable[Entry]) -> list[tuple[str, str | None]]:
    return [(entry.image_path, entry.mask_path) for entry in entries]


MVTEC = (
    "bolt/train/good/000.png",
    "bolt/test/good/000.png",
    "bolt/test/scratch/000.png",
    "bolt/test/scratch/001.png",
    "bolt/ground_truth/scratch/000_mask.png",
    "bolt/ground_truth/scratch/001_mask.png",
)


def test_mvtec_lists_category_split_defect_path_and_mask(tmp_path: Path) -> None:
    touch(tmp_path, *MVTEC, "bolt/readme.txt", "license.txt", "bolt/test/scratch/.hidden.png")

    entries, problems = listed(tmp_path, "mvtec", "all")

    mask = "bolt/ground_truth/scratch/{}_mask.png"
    assert problems == []
    assert entries == [
        Entry("bolt", "test", "good", "bolt/test/good/000.png", None, 0),
        Entry("bolt", "test", "scratch", "bolt/test/scratch/000.png", mask.format("000"), 1),
        Entry("bolt", "test", "scratch", "bolt/test/scratch/001.png", mask.format("001"), 1),
        Entry("bolt", "train", "good", "bolt/train/good/000.png", None, 0),
    ]


def test_splits_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, *MVTEC)

    assert [entry.split for entry in listed(tmp_path, "mvtec", "train")[0]] == ["train"]
    assert [entry.split for entry in listed(tmp_path, "mvtec", "test")[0]] == ["test"] * 3


def test_masks_are_matched_by_stem_not_by_order(tmp_path: Path) -> None:
    touch(tmp_path, "bolt/test/cut/001.JPG", "bolt/test/cut/002.png", "bolt/test/cut/003.png")
    touch(tmp_path, "bolt/ground_truth/cut/003_mask.png", "bolt/ground_truth/cut/001.png")

    entries, problems = listed(tmp_path, "mvtec")

    assert problems == []
    assert pairs(entries) == [
        ("bolt/test/cut/001.JPG", "bolt/ground_truth/cut/001.png"),
        ("bolt/test/cut/002.png", None),
        ("bolt/test/cut/003.png", "bolt/ground_truth/cut/003_mask.png"),
    ]


def test_orphan_and_ambiguous_masks_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "bolt/test/cut/1.png", "bolt/test/cut/2.png", "bolt/test/cut/2.jpg")
    touch(tmp_path, *(f"bolt/ground_truth/cut/{name}.png" for name in ("1", "1_mask", "2", "3")))

    problems = listed(tmp_path, "mvtec")[1]

    assert sorted(problems) == [
        ("ambiguous mask", "bolt/ground_truth/cut/2.png"),
        ("ambiguous mask", "bolt/test/cut/1.png"),
        ("orphan mask", "bolt/ground_truth/cut/3.png"),
    ]


@given(st.lists(st.text("abc_", min_size=1, max_size=3), unique=True), st.randoms())
def test_the_order_of_files_does_not_change_the_matching(stems: list[str], random: Any) -> None:
    images = {f"i/{stem}.png": stem for stem in stems}
    masks = {f"m/{stem}.png": stem for stem in stems[::2]}
    shuffled = dict(random.sample(sorted(masks.items()), len(masks)))

    assert match_masks(images, masks, []) == match_masks(images, shuffled, [])
    for image, mask in match_masks(images, masks, []).items():
        assert mask is None or mask[2:] in (image[2:], image[2:].replace(".png", "_mask.png"))


def test_rows_sort_by_category_split_defect_and_byte_order(tmp_path: Path) -> None:
    names = ["10.png", "2.png", "Z.png", "a.png", "é.png", "\U0001f600.png", "\uffee.png"]
    touch(
        tmp_path, *(f"b/test/good/{name}" for name in names), "b/test/Cut/0.png", "B/test/x/0.png"
    )

    found = [entry.image_path for entry in listed(tmp_path, "mvtec")[0]]

    assert found[:2] == ["B/test/x/0.png", "b/test/Cut/0.png"]
    assert found[2:] == sorted((f"b/test/good/{name}" for name in names), key=str.encode)


def test_stray_images_and_empty_categories_are_named(tmp_path: Path) -> None:
    touch(tmp_path, *MVTEC, "bolt/test/lost.png", "nut/train/good/0.png")

    assert sorted(listed(tmp_path, "mvtec")[1]) == [
        ("empty category", "nut"),
        ("stray image", "bolt/test/lost.png"),
    ]


def test_one_category_given_as_root_gets_a_hint(tmp_path: Path) -> None:
    touch(tmp_path, *MVTEC)
    problems: list[Problem] = []

    entries = list_entries(
        tmp_path / "bolt", layout="mvtec", split="test", dataset="d", problems=problems
    )

    assert entries == []
    assert [problem.kind for problem in problems] == ["wrong layout"]
    assert "this is one category: give the folder above it" in problems[0].detail


def test_defective_training_images_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *MVTEC, "bolt/train/scratch/0.png")

    assert listed(tmp_path, "mvtec", "train")[1] == [("wrong layout", "bolt/train/scratch")]


def test_class_folders_of_a_plain_folder_are_defects(tmp_path: Path) -> None:
    touch(tmp_path, "OK/1.png", "dent/2.png", "dent/deep/3.png", "masks/dent/2.png")

    entries, problems = listed(tmp_path, "folder")

    assert entries == [
        Entry("shop", "test", "dent", "dent/2.png", "masks/dent/2.png", 1),
        Entry("shop", "test", "dent", "dent/deep/3.png", None, 1),
        Entry("shop", "test", "good", "OK/1.png", None, 0),
    ]
    assert problems == [("missing mask", "dent/deep/3.png")]


def test_images_and_masks_side_by_side_leave_the_label_to_the_mask(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg", "masks/2_mask.png")

    entries, problems = listed(tmp_path, "folder")

    assert problems == []
    assert entries == [
        Entry("shop", "test", "defect", "images/2.jpg", "masks/2_mask.png", None),
        Entry("shop", "test", "good", "images/1.jpg", None, 0),
    ]


def test_images_without_any_label_count_as_good_and_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")

    entries, problems = listed(tmp_path, "folder")

    assert [entry.label for entry in entries] == [0, 0]
    assert problems == [("unlabelled", "1.png"), ("unlabelled", "2.png")]


def test_class_folders_without_a_good_one_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "bolts/1.png", "nuts/1.png")

    assert listed(tmp_path, "folder")[1] == [
        ("no good folder", "bolts"),
        ("no good folder", "nuts"),
    ]


@pytest.mark.parametrize("root", [".", "bolt"])
def test_an_mvtec_tree_is_no_plain_folder(tmp_path: Path, root: str) -> None:
    touch(tmp_path, *MVTEC)

    assert listed(tmp_path / root, "folder") == ([], [("wrong layout", ".")])


def test_a_plain_folder_has_no_training_split(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")

    assert listed(tmp_path, "folder", "train") == ([], [("no images", ".")])


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown split 'val'; expected train, test or all"):
        list_entries(tmp_path, layout="mvtec", split="val", dataset="d", problems=[])
