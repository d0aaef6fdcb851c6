"""Datasets that come with a list: VisA's CSV and meta.json."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from manifests.layouts import list_entries
from manifests.lists import Entry
from manifests.problems import Layout, Problem


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
