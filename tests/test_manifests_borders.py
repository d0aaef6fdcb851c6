"""What was not foreseen, as it comes from Macs, Windows, network drives, spreadsheets, editors."""

import csv
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from manifests.problems import Layout
from tests.dataset_files import blank, mask, picture
from tests.test_manifests_reading import build, images, refusal

Form = Literal["NFC", "NFD"]


def bolts(root: Path, good: str = "good", bad: str = "cut") -> None:
    picture(root, "bolt/train/good/0.png", f"bolt/test/{good}/1.png", f"bolt/test/{bad}/2.png")


# --- folders -------------------------------------------------------------------------------


def test_good_parts_under_a_word_that_is_not_known_are_no_defects(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for part in ("def_front", "ok_front"):  # a set of castings, much used
            picture(tmp_path, f"casting/{split}/{part}/{part}_1.jpeg")

    message = refusal(tmp_path, "mvtec")

    assert "no folder's name says normal" in message
    assert "casting/test/ok_front" in message
    named = build(tmp_path, "mvtec", normal=("ok_front",))
    assert named.manifest.column("defect") == ["def_front", "good"]


def test_a_class_whose_masks_are_all_empty_is_not_taken_for_a_defect(tmp_path: Path) -> None:
    bolts(tmp_path, good="gut")
    mask(tmp_path, "bolt/ground_truth/cut/2.png")
    blank(tmp_path, "bolt/ground_truth/gut/1.png")

    message = refusal(tmp_path, "mvtec", "all")

    assert "    bolt/test/gut\n" in message
    assert "    bolt/test/cut\n" not in message  # its mask says what it is


def test_a_test_split_of_defects_alone_is_read_where_masks_or_the_user_say_so(
    tmp_path: Path,
) -> None:
    picture(tmp_path, "bolt/train/good/0.png", "bolt/test/cut/2.png")
    without = build(tmp_path, "mvtec", "all", normal=("none",))
    mask(tmp_path, "bolt/ground_truth/cut/2.png")

    assert build(tmp_path, "mvtec", "all").manifest.labels.tolist() == [1, 0]
    assert without.manifest.labels.tolist() == [1, 0]


NOT_OURS = (
    *("$RECYCLE.BIN/S-1-5-21", "System Volume Information", "lost+found", "#recycle/cut"),
    *("@Recycle", "__MACOSX/cut", "@eaDir/2.png"),
)


@pytest.mark.parametrize("layout", ["mvtec", "folder"])
def test_what_systems_leave_on_a_disk_is_no_class(tmp_path: Path, layout: Layout) -> None:
    if layout == "mvtec":
        bolts(tmp_path)
        mask(tmp_path, "bolt/ground_truth/cut/2.png")
    else:
        picture(tmp_path, "good/1.png", "cut/2.png")
    before = images(build(tmp_path, layout))
    for folder in ("", "bolt/test/" if layout == "mvtec" else "cut/"):
        picture(tmp_path, *(f"{folder}{name}/thumb.png" for name in NOT_OURS))
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._2.png"):
            (tmp_path / folder / name).write_bytes(b"\0")

    assert images(build(tmp_path, layout)) == before


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("layout", ["mvtec", "folder"])
def test_masks_drawn_on_a_mac_belong_to_images_from_elsewhere(
    tmp_path: Path, layout: Layout, forms: tuple[Form, Form]
) -> None:
    above, masks = ("bolt/test/", "bolt/ground_truth/") if layout == "mvtec" else ("", "mask/")
    picture(tmp_path, f"{above}good/1.png")
    picture(tmp_path, unicodedata.normalize(forms[0], f"{above}öl/fläche.png"))
    mask(tmp_path, unicodedata.normalize(forms[1], f"{masks}öl/fläche_mask.png"))

    built = build(tmp_path, layout)

    assert built.warnings == ()
    assert {*built.manifest.column("mask_pixels")} == {0, 6}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_list_made_on_a_mac_names_images_from_elsewhere(
    tmp_path: Path, forms: tuple[Form, Form]
) -> None:
    picture(tmp_path, unicodedata.normalize(forms[0], "öl/fläche.png"))
    named = unicodedata.normalize(forms[1], "öl/fläche.png")
    (tmp_path / "list.csv").write_text(f"image_path,label\n{named},good\n")

    assert images(build(tmp_path, "list")) == [unicodedata.normalize(forms[0], "öl/fläche.png")]


@pytest.mark.parametrize("name", ["2.json", "2.npy", "2.txt", "2.gif"])
@pytest.mark.parametrize("layout", ["mvtec", "folder"])
def test_masks_that_cannot_be_read_are_not_taken_for_none(
    tmp_path: Path, layout: Layout, name: str
) -> None:
    if layout == "mvtec":
        bolts(tmp_path)
    else:
        picture(tmp_path, "good/1.png", "cut/2.png")
    masks = tmp_path / ("bolt/ground_truth/cut" if layout == "mvtec" else "masks/cut")
    masks.mkdir(parents=True)
    match name.rpartition(".")[2]:
        case "npy":
            np.save(masks / name, np.zeros((8, 12)))
        case "gif":
            Image.new("L", (12, 8)).save(masks / name)
        case _:
            (masks / name).write_text("{}")

    message = refusal(tmp_path, layout)

    assert f"cut/{name}: a folder of masks without one that is read" in message


def test_a_folder_of_masks_that_is_empty_is_none(tmp_path: Path) -> None:
    bolts(tmp_path)
    (tmp_path / "bolt/ground_truth/cut").mkdir(parents=True)
    (tmp_path / "bolt/ground_truth/cut/Thumbs.db").write_bytes(b"\0")

    assert "no image has a mask" in build(tmp_path, "mvtec").warnings[0]


def test_a_set_one_folder_further_down_is_named(tmp_path: Path) -> None:
    root = tmp_path / "BTech_Dataset_transformed"
    picture(root, "01/train/ok/0.bmp", "01/test/ok/1.bmp", "01/test/ko/2.bmp")
    mask(root, "01/ground_truth/ko/2.png")

    message = refusal(tmp_path, "btad")

    assert f"{root.name} in it looks like BTAD: give that folder as --root" in message


# --- masks ---------------------------------------------------------------------------------


def with_mask(root: Path, save_mask: Callable[[Path], object], name: str = "2.png") -> None:
    bolts(root)
    (root / "bolt/ground_truth/cut").mkdir(parents=True)
    save_mask(root / "bolt/ground_truth/cut" / name)


def test_black_and_white_swapped_is_said(tmp_path: Path) -> None:
    swapped = np.full((8, 12), 255, np.uint8)
    swapped[3:6, 2:4] = 0
    with_mask(tmp_path, Image.fromarray(swapped).save)

    [warning] = build(tmp_path, "mvtec").warnings

    assert "covers more than half of its image; are black and white swapped?" in warning
    assert "bolt/ground_truth/cut/2.png: 93 % of the image" in warning


def test_colours_under_what_is_transparent_are_no_defect(tmp_path: Path) -> None:
    # an editor's export: white, and seen only where it was drawn upon
    pixels = np.full((8, 12, 4), (255, 255, 255, 0), np.uint8)
    pixels[3:6, 2:4] = (255, 0, 0, 255)
    with_mask(tmp_path, Image.fromarray(pixels).save)

    assert "2.png: colours under what is transparent" in refusal(tmp_path, "mvtec")


def test_a_mask_upon_a_transparent_black_is_read(tmp_path: Path) -> None:
    pixels = np.zeros((8, 12, 4), np.uint8)
    pixels[3:6, 2:4] = (255, 0, 0, 255)
    with_mask(tmp_path, Image.fromarray(pixels).save)

    assert build(tmp_path, "mvtec").manifest.column("mask_pixels") == [6, 0]


@pytest.mark.parametrize("name", ["2.tif", "2.png"])
def test_a_mask_of_several_pages_is_refused(tmp_path: Path, name: str) -> None:
    empty, drawn = Image.new("L", (12, 8)), Image.new("L", (12, 8))
    drawn.paste(255, (2, 3, 4, 6))
    with_mask(tmp_path, lambda path: empty.save(path, save_all=True, append_images=[drawn]), name)

    assert f"{name}: 2 pages; expected a mask of one" in refusal(tmp_path, "mvtec")


def test_a_mask_of_a_turned_picture_is_refused_with_the_option(tmp_path: Path) -> None:
    with_mask(tmp_path, Image.new("L", (8, 12), 1).save)
    photo = Image.open(tmp_path / "bolt/test/cut/2.png")
    exif = photo.getexif()
    exif[0x0112] = 6  # as a phone held upright writes it
    (tmp_path / "bolt/test/cut/2.png").unlink()
    photo.save(tmp_path / "bolt/test/cut/2.jpg", exif=exif)

    assert "8 x 12 pixels, its image 12 x 8; --exif turns" in refusal(tmp_path, "mvtec")


# --- lists ---------------------------------------------------------------------------------


def listed(root: Path) -> pd.DataFrame:
    picture(root, "a.png", "b.png")
    mask(root, "m/b.png")
    return pd.DataFrame(
        {"image_path": ["a.png", "b.png"], "label": [0, 1], "mask_path": ["", "m/b.png"]}
    )


def test_a_list_that_excel_saved_is_read(tmp_path: Path) -> None:
    """Excel says how cells are cut, ends lines as Windows does, keeps emptied rows and columns."""
    table = listed(tmp_path)
    for column in ("x", "y"):
        table[column] = ""
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8-sig") as file:
        file.write("sep=;\r\n")
        writer = csv.writer(file, dialect="excel", delimiter=";")
        writer.writerow([*table.columns[:3], "", ""])
        writer.writerows([*table.to_numpy().tolist(), [""] * 5, [""] * 5])

    built = build(tmp_path, "list")

    assert built.manifest.column("mask_pixels") == [6, 0]
    assert built.warnings == ()


@pytest.mark.parametrize("na", ["-", "N/A", "NA", "#N/A", "NaN", "None", ""])
def test_a_cell_that_says_there_is_no_mask_is_none(tmp_path: Path, na: str) -> None:
    table = listed(tmp_path)
    table["mask_path"] = [None, "m/b.png"]
    table.to_csv(tmp_path / "list.csv", na_rep=na)

    assert build(tmp_path, "list").manifest.column("mask_path") == ["m/b.png", None]


@pytest.mark.parametrize("number", ["-1", "2", "0.5", "0,5"])
def test_a_number_that_is_no_label_is_no_name_of_a_defect(tmp_path: Path, number: str) -> None:
    picture(tmp_path, "a.png", "b.png")
    (tmp_path / "list.csv").write_text(f"image_path;label\na.png;0\nb.png;{number}\n")

    assert f"label '{number}'; expected an image's path and one label" in refusal(tmp_path, "list")


def test_columns_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    table = listed(tmp_path)
    table["Label"] = [1, 0]
    table.to_csv(tmp_path / "list.csv", index=False)
    assert "the column 'label' stands twice" in refusal(tmp_path, "list")

    table.to_json(tmp_path / "list.csv", orient="records", lines=True)
    assert "two fields of one name but for upper and lower case" in refusal(tmp_path, "list")


def as_xlsx(path: Path, table: pd.DataFrame) -> None:
    with zipfile.ZipFile(path, "w") as book:  # what every workbook is
        book.writestr("xl/worksheets/sheet1.xml", table.to_xml(parser="etree"))


WRITERS: dict[str, tuple[Callable[[Path, pd.DataFrame], object], str]] = {
    "workbook": (as_xlsx, "it is an Excel workbook"),
    "gzip": (lambda path, table: table.to_csv(path, compression="gzip"), "it is packed by gzip"),
    "parquet": (lambda path, table: table.to_parquet(path), "it is a Parquet file"),
    "utf-16": (
        lambda path, table: table.to_csv(path, encoding="utf-16-le"), "save it as UTF-8"
    ),
    "old windows": (
        lambda path, table: table.assign(x="ä").to_csv(path, encoding="cp1252"), "save it as UTF-8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_a_list_that_is_no_text_is_named_with_what_to_do(tmp_path: Path, kind: str) -> None:
    write, words = WRITERS[kind]
    write(tmp_path / "list.csv", listed(tmp_path))

    assert f"list.csv: {words}" in refusal(tmp_path, "list") or words in refusal(tmp_path, "list")


def test_a_list_of_coco_is_named(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")
    (tmp_path / "list.json").write_text('{"images": [], "annotations": [], "categories": []}')

    assert "COCO's boxes and polygons" in refusal(tmp_path, "list")


def test_visas_own_list_of_a_category_is_read(tmp_path: Path) -> None:
    data = "Data"
    picture(tmp_path, f"{data}/Images/Normal/0.JPG", f"{data}/Images/Anomaly/1.JPG")
    mask(tmp_path, f"{data}/Masks/Anomaly/1.png", value=2)
    (tmp_path / "image_anno.csv").write_text(
        f"image,label,mask\n{data}/Images/Normal/0.JPG,normal,\n"
        f'{data}/Images/Anomaly/1.JPG,"melt,hole",{data}/Masks/Anomaly/1.png\n'
    )

    built = build(tmp_path, "list")

    assert built.manifest.column("defect") == ["good", "melt,hole"]
    assert built.manifest.column("mask_pixels") == [0, 6]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1217524280\n"
INSTEAD = {"git lfs pull": POINTER, "a web page": b"<!DOCTYPE html>\n<html><body>404"}


@pytest.mark.parametrize("words", INSTEAD)
@pytest.mark.parametrize("file", ["bolt/test/good/1.png", "bolt/ground_truth/cut/2.png"])
def test_what_stands_for_a_picture_is_named(tmp_path: Path, file: str, words: str) -> None:
    bolts(tmp_path)
    mask(tmp_path, "bolt/ground_truth/cut/2.png")
    (tmp_path / file).write_bytes(INSTEAD[words])

    message = refusal(tmp_path, "mvtec")

    assert f"{file}: cannot be decoded (a" in message
    assert words in message


@pytest.mark.parametrize("words", INSTEAD)
@pytest.mark.parametrize(
    ("layout", "name"),
    [("meta", "meta.json"), ("list", "list.csv"), ("visa", "split_csv/1cls.csv")],
)
def test_what_stands_for_a_list_is_named(
    tmp_path: Path, layout: Layout, name: str, words: str
) -> None:
    picture(tmp_path, "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(INSTEAD[words])

    assert words in refusal(tmp_path, layout)
