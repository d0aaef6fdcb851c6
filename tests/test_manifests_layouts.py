"""Listing the images of a dataset, without opening one."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.layouts import list_entries, match_masks
from manifests.lists import Entry
from manifests.paths import list_folder, path_problem
from manifests.problems import Layout, Problem
from spg_core.errors import ConfigError


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write_csv(root: Path, *lines: str, header: str = "object,split,label,image,mask") -> None:
    (root / "split_csv").mkdir(parents=True, exist_ok=True)
    (root / "split_csv/1cls.csv").write_text("\n".join([header, *lines]) + "\n")


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


VISA = (
    "nut/Data/Images/Normal/0.JPG",
    "nut/Data/Images/Normal/1.JPG",
    "nut/Data/Images/Anomaly/2.JPG",
    "nut/Data/Masks/Anomaly/2.png",
)
VISA_LINES = (
    "nut,train,normal,nut/Data/Images/Normal/0.JPG,",
    "nut,test,normal,nut/Data/Images/Normal/1.JPG,",
    "nut,test,anomaly,nut/Data/Images/Anomaly/2.JPG,nut/Data/Masks/Anomaly/2.png",
)


def test_raw_and_reorganised_visa_give_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    raw, tree = tmp_path / "raw", tmp_path / "tree"
    touch(raw, *VISA)
    write_csv(raw, *VISA_LINES)
    touch(tree, "nut/train/0.JPG", "nut/test/good/1.JPG", "nut/test/bad/2.JPG")
    touch(tree, "nut/ground_truth/bad/2.png")

    from_raw, raw_problems = listed(raw, "visa", "all")
    from_tree, tree_problems = listed(tree, "visa", "all")

    assert raw_problems == tree_problems == []
    assert pairs(from_raw)[0] == (VISA[2], VISA[3])
    rows = [
        [(e.category, e.split, e.defect, e.label, Path(e.image_path).name) for e in entries]
        for entries in (from_raw, from_tree)
    ]
    assert rows[0] == rows[1]


def test_a_csv_from_a_spreadsheet_reads_too(tmp_path: Path) -> None:
    touch(tmp_path, *VISA)
    text = "\ufeffobject, split, label, image, mask\r\n" + "\r\n".join(VISA_LINES) + "\r\n"
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_bytes(text.encode())

    entries, problems = listed(tmp_path, "visa")

    assert (len(entries), problems) == (2, [])


def test_every_bad_line_of_a_csv_is_named(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.touch()
    root = tmp_path / "root"
    touch(root, *VISA)
    (root / "way_out").symlink_to(tmp_path)
    write_csv(
        root,
        *VISA_LINES,
        VISA_LINES[1],
        "nut,test,normal,../outside.png,",
        f"nut,test,normal,{outside},",
        "nut,test,normal,way_out/outside.png,",
        "nut,test,normal,nut/gone.png,",
        f"nut,test,normal,{'x' * 300}.png,",
        "nut,test,broken,nut/0.png,",
        "nut,val,normal,nut/0.png,",
        "a/b,test,normal,nut/0.png,",
        "nut",
    )

    entries, problems = listed(root, "visa")

    assert len(entries) == 2
    place = "split_csv/1cls.csv line"
    assert sorted(problems) == sorted(
        [
            ("listed twice", VISA[1]),
            ("leaves the root", "../outside.png"),
            ("leaves the root", str(outside)),
            ("leaves the root", "way_out/outside.png"),
            ("missing file", "nut/gone.png"),
            ("missing file", f"{'x' * 300}.png"),
            *(("unusable list", f"{place} {number}") for number in (11, 12, 13, 14)),
        ]
    )


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"object,split,image\n", "no column label, mask; expected object,split,label,image,mask"),
        (b"", "no column object, split"),
        (b"object,\xff\n", "cannot be read"),
    ],
)
def test_a_csv_without_its_columns_is_refused(tmp_path: Path, content: bytes, detail: str) -> None:
    touch(tmp_path, "split_csv/1cls.csv")
    (tmp_path / "split_csv/1cls.csv").write_bytes(content)
    problems: list[Problem] = []

    list_entries(tmp_path, layout="visa", split="test", dataset="d", problems=problems)

    assert [problem.kind for problem in problems] == ["unusable list"]
    assert detail in problems[0].detail


def test_visa_without_csv_or_tree_says_what_was_expected(tmp_path: Path) -> None:
    problems: list[Problem] = []

    list_entries(tmp_path, layout="visa", split="test", dataset="d", problems=problems)

    assert "<category>/test/<defect> folders or split_csv/1cls.csv" in problems[0].detail


def meta_item(image: str, mask: str | None, defect: str, anomaly: Any) -> dict[str, Any]:
    return {
        "img_path": image,
        "mask_path": mask,
        "cls_name": "bolt",
        "specie_name": defect,
        "anomaly": anomaly,
    }


def test_meta_json_lists_what_it_says(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "b_mask.png", "c.png", "d.png")
    test_items = [
        meta_item("c.png", None, "dent", 1),
        meta_item("b.png", "b_mask.png", "dent", 1),
        meta_item("a.png", "", "good", 0),
    ]
    meta = {"test": {"bolt": test_items}, "train": {"bolt": [meta_item("d.png", "", "good", 0)]}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))

    entries, problems = listed(tmp_path, "meta")

    assert problems == []
    assert entries == [
        Entry("bolt", "test", "dent", "b.png", "b_mask.png", 1),
        Entry("bolt", "test", "dent", "c.png", None, 1),
        Entry("bolt", "test", "good", "a.png", None, 0),
    ]


def test_every_bad_entry_of_a_meta_json_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    items: list[Any] = [
        meta_item("a.png", "../m.png", "dent", 1),
        meta_item("a.png", "", "good", 1),
        meta_item("a.png", "", "dent", 2),
        meta_item("\ud800.png", "", "good", 0),
        {"img_path": 5, "anomaly": 0},
        "a.png",
    ]
    meta = {"test": {"bolt": items, "../nut": [], "cog": {}}, "val": {}, "train": []}
    (tmp_path / "meta.json").write_text(json.dumps(meta))

    problems = listed(tmp_path, "meta", "all")[1]

    assert sorted(problems) == sorted(
        [
            ("leaves the root", "../m.png"),
            ("unusable name", "\ud800.png"),
            *(("unusable list", f"meta.json test/bolt[{number}]") for number in (1, 2, 4, 5)),
            ("unusable list", "meta.json test/../nut"),
            ("unusable list", "meta.json test/cog"),
            ("unusable list", "meta.json train"),
            ("other split", "meta.json: val"),
        ]
    )


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_meta_json_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meta.json").write_bytes(content)

    assert listed(tmp_path, "meta") == ([], [("unusable list", "meta.json")])


def test_a_missing_meta_json_is_named(tmp_path: Path) -> None:
    assert listed(tmp_path, "meta") == ([], [("missing file", "meta.json")])


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


def test_links_inside_the_root_are_followed_and_those_out_of_it_are_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root, *MVTEC)
    touch(tmp_path, "outside/0.png")
    (root / "bolt/test/inside").symlink_to(root / "bolt/test/scratch")
    (root / "bolt/test/out").symlink_to(tmp_path / "outside")
    (root / "bolt/test/good/9.png").symlink_to(tmp_path / "outside/0.png")
    (root / "bolt/test/good/8.png").symlink_to("gone.png")
    (root / "bolt/ground_truth/out").symlink_to(tmp_path / "outside")

    entries, problems = listed(root, "mvtec")

    assert [entry.defect for entry in entries] == ["good", "inside", "inside", "scratch", "scratch"]
    assert sorted(problems) == [
        ("leaves the root", "bolt/ground_truth/out"),
        ("leaves the root", "bolt/test/good/9.png"),
        ("leaves the root", "bolt/test/out"),
        ("missing file", "bolt/test/good/8.png"),
    ]


def test_symlink_loops_are_named_and_end(tmp_path: Path) -> None:
    touch(tmp_path, "good/1.png", "a/1.png", "b/1.png")
    (tmp_path / "good/up").symlink_to("..")
    (tmp_path / "good/self").symlink_to("self")
    (tmp_path / "a/to_b").symlink_to("../b")
    (tmp_path / "b/to_a").symlink_to("../a")

    problems = listed(tmp_path, "folder")[1]

    assert sorted(path for kind, path in problems if kind == "symlink loop") == [
        "a/to_b/to_a",
        "b/to_a/to_b",
        "good/self",
        "good/up",
    ]


def test_names_that_no_manifest_can_hold_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "good/1.png", "good/back\\slash.png", "good/new\nline.png")
    with open(os.fsencode(tmp_path) + b"/good/\xff.png", "wb"):  # noqa: PTH123 (bytes)
        pass

    entries, problems = listed(tmp_path, "folder")

    assert [entry.image_path for entry in entries] == ["good/1.png"]
    assert set(problems) == {
        ("unusable name", "good/back\\slash.png"),
        ("unusable name", "good/new\nline.png"),
        ("unusable name", "good/\udcff.png"),
    }


def test_a_folder_that_cannot_name_a_defect_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "bolt/test/good/1.png", "bolt/test/c:/1.png")

    entries, problems = listed(tmp_path, "mvtec")

    assert [entry.defect for entry in entries] == ["good"]
    assert problems == [("unusable name", "bolt/test/c:")]


def test_a_pipe_called_png_is_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "good/1.png")
    os.mkfifo(tmp_path / "good/pipe.png")

    assert len(listed(tmp_path, "folder")[0]) == 1


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    problems: list[Problem] = []

    folder = list_folder(tmp_path, "gone", problems)

    assert (folder.folders, folder.images) == ((), ())
    assert problems == [Problem("unreadable folder", "gone", "No such file or directory")]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/b.png", None),
        ("..a/b..png", None),
        ("", "is empty"),
        ("a/../b", "leaves the dataset root with '..'"),
        ("/a", "is absolute"),
        ("c:\\a", "holds a backslash"),
        ("c:a", "starts with a drive letter"),
        ("a\x00b", "holds a control character"),
        ("a/./b", "is not in its shortest form"),
        ("\udcff", "is not UTF-8"),
        ("é" * 2049, "is 4098 bytes long"),
    ],
)
def test_paths_are_fit_for_a_manifest_or_the_reason_is_said(path: str, reason: str | None) -> None:
    assert path_problem(path) == reason


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown split 'val'; expected train, test or all"):
        list_entries(tmp_path, layout="mvtec", split="val", dataset="d", problems=[])


def test_folders_not_files_are_resolved_when_a_list_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Resolving every file made listing VisA take most of a second; a count does not flicker.
    base = "nut/Data/Images/Normal"
    touch(tmp_path, *(f"{base}/{number}.JPG" for number in range(50)))
    write_csv(tmp_path, *(f"nut,test,normal,{base}/{number}.JPG," for number in range(50)))
    resolved = []
    realpath = os.path.realpath

    def counted(path: Any, **options: Any) -> str:
        resolved.append(path)
        return str(realpath(path, **options))

    monkeypatch.setattr("os.path.realpath", counted)
    entries, problems = listed(tmp_path, "visa")

    assert (len(entries), problems) == (50, [])
    assert 2 <= len(resolved) <= 4
