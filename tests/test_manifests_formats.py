"""Every format of docs/formats.md, made as its authors make it: the right table, or a refusal."""

from pathlib import Path

import pytest

from manifests.build import BuiltManifest, build_manifest
from spg_core.errors import DatasetError
from tests.format_rows import FOLDERS, LISTS, Line, Row, toy, two_folders


def root_of(tmp_path: Path) -> Path:
    """A folder as deep as a snapshot of the hub's cache."""
    root = tmp_path / "datasets--x" / "snapshots" / "0123abc"
    root.mkdir(parents=True)
    return root


def build(root: Path, row: Row) -> BuiltManifest:
    return build_manifest(
        root, layout=row.layout, dataset="shop", split="all", workers=1, reading=row.reading
    )


def lines_of(built: BuiltManifest) -> list[Line]:
    rows = built.manifest.table.to_pylist()
    assert all(row["label"] == (row["defect"] != "good") for row in rows)
    names = ("category", "split", "defect", "image_path", "mask_path")
    return [tuple(row[name] for name in names) for row in rows]  # type: ignore[misc]


def name(row: Row) -> str:
    return f"{row.layout}-{row.what}-{row.option}"


@pytest.mark.parametrize("row", [row for row in FOLDERS + LISTS if row.lines], ids=name)
def test_a_format_gives_the_table_its_authors_mean(tmp_path: Path, row: Row) -> None:
    root = root_of(tmp_path)
    row.make(root)

    built = build(root, row)

    assert sorted(lines_of(built)) == sorted(row.lines)
    masked = {line[3] for line in row.lines if line[4] is not None and line[2] != "good"}
    columns = ("image_path", "mask_pixels")
    pixels = dict(zip(*(built.manifest.column(column) for column in columns), strict=True))
    assert {path for path, count in pixels.items() if count} == masked


@pytest.mark.parametrize("row", [row for row in FOLDERS + LISTS if row.refusal], ids=name)
def test_what_cannot_be_told_is_refused(tmp_path: Path, row: Row) -> None:
    root = root_of(tmp_path)
    row.make(root)

    with pytest.raises(DatasetError) as caught:
        build(root, row)

    assert row.refusal in str(caught.value)


def test_every_row_is_either_read_or_refused() -> None:
    assert all(bool(row.lines) != bool(row.refusal) for row in FOLDERS + LISTS)


def test_the_masks_of_one_image_count_together(tmp_path: Path) -> None:
    (row,) = [row for row in FOLDERS if row.what == "MVTec LOCO"]
    row.make(tmp_path)

    pixels = build(tmp_path, row).manifest.column("mask_pixels")

    assert pixels == [0, 9, 0, 0]  # columns 2, 3 and 3, 7 of three rows


@pytest.mark.parametrize(
    "masks",
    [
        "mask",
        "masks",
        "Masks",
        "gt",
        "GT",
        "ground_truth",
        "ground-truth",
        "Ground Truth",
        "labels",
    ],
)
def test_masks_are_no_defects_whatever_their_folder_is_called(tmp_path: Path, masks: str) -> None:
    toy(tmp_path, masks)

    built = build_manifest(tmp_path, layout="folder", dataset="shop", split="test", workers=1)

    assert lines_of(built) == [
        ("shop", "test", "colour", "colour/001.jpg", f"{masks}/colour/001_mask.png"),
        ("shop", "test", "crack", "crack/000.jpg", f"{masks}/crack/000.png"),
        ("shop", "test", "good", "good/000.jpg", None),
    ]


@pytest.mark.parametrize(
    ("normal", "defective"),
    [
        ("no", "yes"),
        ("normal", "abnormal"),
        ("ok", "nok"),
        ("OK", "NG"),
        ("pass", "fail"),
        ("good", "bad"),
        ("negative", "positive"),
        ("Defect-Free", "defective"),
        ("none", "crack"),
        ("non_defective", "defect"),
        ("free", "rust"),
        ("Good", "Ungood"),
    ],
)
def test_the_folder_whose_name_says_normal_is_normal(
    tmp_path: Path, normal: str, defective: str
) -> None:
    two_folders(tmp_path, normal, defective)

    built = build_manifest(tmp_path, layout="folder", dataset="shop", split="test", workers=1)

    assert sorted(lines_of(built)) == [
        ("shop", "test", *line)
        for line in sorted(
            [("good", f"{normal}/1.jpg", None), (defective, f"{defective}/2.jpg", None)]
        )
    ]
