"""What a user can correct and leave out, and lists that are not as they should be."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manifests.build import BuiltManifest, build_manifest, fingerprint_files
from manifests.listing import Reading
from manifests.problems import Layout
from manifests.table import manifest_from_bytes, manifest_to_bytes
from spg_core.errors import ConfigError, DatasetError
from tests.dataset_files import blank, mask, picture, write_json, write_lines


def build(root: Path, layout: Layout, split: str = "test", **reading: Any) -> BuiltManifest:
    return build_manifest(
        root, layout=layout, dataset="shop", split=split, workers=2, reading=Reading(**reading)
    )


def refusal(root: Path, layout: Layout, split: str = "test", **reading: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        build(root, layout, split, **reading)
    return str(caught.value)


def images(built: BuiltManifest) -> list[object]:
    return built.manifest.column("image_path")


def bolts(root: Path) -> None:
    picture(root, *(f"bolt/test/good/{number}.png" for number in range(3)))
    picture(root, *(f"bolt/test/cut/{number}.png" for number in range(3)))
    mask(root, *(f"bolt/ground_truth/cut/{number}_mask.png" for number in range(3)))


def test_a_limit_takes_the_first_of_each_category_and_label(tmp_path: Path) -> None:
    bolts(tmp_path)
    picture(tmp_path, "nut/test/good/7.png")

    assert images(build(tmp_path, "mvtec", limit=2)) == [
        *("bolt/test/cut/0.png", "bolt/test/cut/1.png"),
        *("bolt/test/good/0.png", "bolt/test/good/1.png", "nut/test/good/7.png"),
    ]


def test_a_limit_counts_labels_that_only_masks_tell(tmp_path: Path) -> None:
    picture(tmp_path, *(f"Part{number}.jpg" for number in range(6)))
    blank(tmp_path, *(f"Part{number}_label.bmp" for number in range(4)))
    mask(tmp_path, "Part4_label.bmp", "Part5_label.bmp")

    built = build(tmp_path, "kolektor", limit=1)

    assert images(built) == ["Part4.jpg", "Part0.jpg"]
    assert built.manifest.labels.tolist() == [1, 0]


def test_broken_images_are_left_out_counted_and_named_in_the_manifest(tmp_path: Path) -> None:
    bolts(tmp_path)
    (tmp_path / "bolt/test/good/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "bolt/ground_truth/cut/2_mask.png").write_bytes(b"")

    built = build(tmp_path, "mvtec", skip_broken=True)

    left_out = ("bolt/ground_truth/cut/2_mask.png", "bolt/test/good/1.png")
    (warning,) = built.warnings
    assert warning.startswith("2 x broken file, left out with its image: bolt/ground_truth/cut/2_m")
    assert built.manifest.n_images == 4
    assert built.manifest.left_out == left_out
    read = manifest_from_bytes(manifest_to_bytes(built.manifest), "m")
    assert read.left_out == left_out
    assert "2 problems in" in refusal(tmp_path, "mvtec")


def test_a_dataset_of_broken_images_is_refused_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "bolt/test/good").mkdir(parents=True)
    (tmp_path / "bolt/test/good/0.png").write_bytes(b"broken")

    assert "no images (1):\n    .: all are broken" in refusal(tmp_path, "mvtec", skip_broken=True)


def test_files_that_a_list_names_and_that_are_gone_can_be_left_out(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")
    rows = [{"image_path": path, "label": 0} for path in ("a.png", "gone.png")]
    write_lines(tmp_path, "list.jsonl", rows)

    built = build(tmp_path, "list", skip_broken=True)

    assert images(built) == ["a.png"]
    assert built.manifest.left_out == ("gone.png",)
    assert "missing file (1)" in refusal(tmp_path, "list")


def test_what_is_asked_of_a_listing_is_part_of_its_fingerprint(tmp_path: Path) -> None:
    bolts(tmp_path)

    prints = {
        fingerprint_files(tmp_path, "mvtec", "test", reading)
        for reading in (Reading(), Reading(limit=2), Reading(skip_broken=True), Reading(limit=2))
    }

    assert len(prints) == 3


def test_a_fingerprint_sees_each_of_several_masks(tmp_path: Path) -> None:
    folder = "pin/ground_truth/bent/000"
    picture(tmp_path, "pin/test/bent/000.png")
    mask(tmp_path, f"{folder}/000.png", f"{folder}/001.png")
    before = fingerprint_files(tmp_path, "loco", "test")

    os.utime(tmp_path / folder / "001.png", (1, 1))

    assert fingerprint_files(tmp_path, "loco", "test") != before


def test_a_folder_says_what_it_was_taken_for_before_an_image_is_opened(tmp_path: Path) -> None:
    picture(tmp_path, "good/0.png", "good/1.png", "crack/0.png")
    mask(tmp_path, "mask/crack/0.png")
    told: list[str] = []

    def announce(line: str) -> None:
        told.append(line)
        (tmp_path / "good/1.png").write_bytes(b"")  # what comes later sees it

    with pytest.raises(DatasetError, match=r"good/1\.png: the file is empty"):
        build_manifest(
            tmp_path, layout="folder", dataset="d", split="test", workers=1, announce=announce
        )

    assert told == ["2 normal, 1 defective, 1 mask: mask/crack/0.png is the mask of crack/0.png"]


@pytest.mark.parametrize("named", ["truth", "./truth/", "{root}/truth"])
def test_masks_names_the_folder_of_masks(tmp_path: Path, named: str) -> None:
    picture(tmp_path, "good/0.png", "label/1.png")
    mask(tmp_path, "truth/label/1.png")

    built = build(tmp_path, "folder", masks=named.format(root=tmp_path))

    assert built.manifest.column("mask_path") == [None, "truth/label/1.png"]
    assert built.manifest.column("defect") == ["good", "label"]


@pytest.mark.parametrize("named", ["trut", "../truth", "/", "a\0b"])
def test_a_folder_of_masks_that_is_not_there_is_refused(tmp_path: Path, named: str) -> None:
    bolts(tmp_path / "root")
    mask(tmp_path, "truth/cut/0.png")

    assert "no folder below the root is called so" in refusal(
        tmp_path / "root", "mvtec", masks=named
    )


def test_a_picture_is_no_mask_whatever_its_folder_is_called(tmp_path: Path) -> None:
    picture(tmp_path, "good/0.png", "crack/1.png", "label/1.png")

    assert "label/1.png: greys all over, as in a picture" in refusal(tmp_path, "folder")
    built = build(tmp_path, "folder", masks="none")
    assert built.manifest.column("defect") == ["crack", "good", "label"]


@pytest.mark.parametrize("name", ["001_m.png", "m-001.png", "001.png", "seg.001.bmp"])
def test_a_mask_is_never_an_image_without_being_told_so(tmp_path: Path, name: str) -> None:
    picture(tmp_path, "good/000.png", "crack/001.png")
    mask(tmp_path, f"wahrheit/{name}")

    assert f"wahrheit/{name}: of crack/001.png" in refusal(tmp_path, "folder")
    assert build(tmp_path, "folder", masks="none").manifest.n_images == 3


def test_a_mask_beside_several_images_is_refused(tmp_path: Path) -> None:
    picture(tmp_path, "good/0.png", "crack/1.png", "dent/1.png")
    mask(tmp_path, "mask/1.png")

    assert "mask/1.png: fits crack/1.png and dent/1.png" in refusal(tmp_path, "folder")


@pytest.mark.parametrize(
    ("reading", "layout", "words"),
    [
        ({"masks": "gt"}, "meta", "--masks means nothing to layout meta; it is for mvtec"),
        ({"normal": ("a",)}, "dagm", "--normal means nothing to layout dagm"),
        ({"list_file": "a"}, "mvtec", "--list-file means nothing to layout mvtec; it is for visa"),
    ],
)
def test_a_correction_that_changes_nothing_is_refused(
    tmp_path: Path, reading: Any, layout: Layout, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        build(tmp_path, layout, **reading)


META = '{"test": {"bolt": [{"img_path": "a.png", "specie_name": "good", "anomaly": %s}]}}'
LINE = '{"image_path": "a.png", "label": %s}\n'


@pytest.mark.parametrize("text", ['"0"', "0.0", "false", '"0.0"', '"good"', '"Normal"', '"OK"'])
def test_a_label_says_normal_in_many_ways(tmp_path: Path, text: str) -> None:
    picture(tmp_path, "a.png")
    (tmp_path / "meta.json").write_text(META % text)
    (tmp_path / "list.jsonl").write_text(LINE % text)

    for layout in ("meta", "list"):
        reading = {"list_file": "list.jsonl"} if layout == "list" else {}
        assert build(tmp_path, layout, **reading).manifest.labels.tolist() == [0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["2", "-1", "0.5", "1e999", "NaN", "null", "[0]", '"maybe"', '""', "9" * 4000, "9" * 9000],
)
def test_a_label_that_is_none_is_refused_in_few_words(tmp_path: Path, text: str) -> None:
    picture(tmp_path, "a.png")
    (tmp_path / "meta.json").write_text(META % text)
    (tmp_path / "list.jsonl").write_text(LINE % text)

    for layout in ("meta", "list"):
        reading = {"list_file": "list.jsonl"} if layout == "list" else {}
        message = refusal(tmp_path, layout, **reading)  # type: ignore[arg-type]
        assert "unusable list (1)" in message
        assert len(message) < 1500


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"test": {}, "test": {}}', "test"),
        ('{"test": {"bolt": [], "bolt": []}}', "bolt"),
        ('{"test": {"bolt": [{"img_path": "a", "anomaly": 1, "anomaly": 0}]}}', "anomaly"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "meta.json").write_text(text)

    assert f"the key '{key}' stands twice" in refusal(tmp_path, "meta")


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image_path,label,label\na.png,0,1\n")

    assert "the column 'label' stands twice" in refusal(tmp_path, "list")


def test_a_cell_with_a_comma_is_not_cut_in_two(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image_path,label\na,b.png,0\n")

    assert "line 2 has more cells than columns" in refusal(tmp_path, "list")


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image_path,label,label_index\na.png,good,1\n")

    assert "expected an image's path and one label" in refusal(tmp_path, "list")


@pytest.mark.parametrize("layout", ["meta", "list", "real-iad"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused(tmp_path: Path, layout: Layout, opening: str) -> None:
    (tmp_path / "meta.json").write_text(opening * 200_000)

    assert "nested too deeply" in refusal(tmp_path, layout)


def test_ten_thousand_bad_rows_give_a_short_error(tmp_path: Path) -> None:
    rows = [{"image_path": f"{'x' * 3000}{n}.png", "label": 0} for n in range(10_000)]
    write_lines(tmp_path, "list.jsonl", rows)

    message = refusal(tmp_path, "list")

    assert message.startswith("10001 problems in")
    assert "and 9980 more" in message
    assert len(message) < 12_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_come_in_many_encodings(tmp_path: Path, encoding: str, end: str) -> None:
    picture(tmp_path, "Löt.png", "x.png")
    rows = [{"image_path": "Löt.png", "label": 0}, {"image_path": "x.png", "label": 0}]
    lines = end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end
    table = end.join(["image_path;label", "Löt.png;0", '"x.png";good', ""])
    (tmp_path / "a.jsonl").write_bytes(lines.encode(encoding))
    (tmp_path / "a.csv").write_bytes(table.encode(encoding))

    for name in ("a.jsonl", "a.csv"):
        assert images(build(tmp_path, "list", list_file=name)) == ["Löt.png", "x.png"]


@pytest.mark.parametrize("name", ["\ud800.png", "\x1b[31m.png", "a\u0085b.png", "a\nb.png"])
def test_names_in_a_list_that_are_none_are_refused_and_printable(tmp_path: Path, name: str) -> None:
    item = {"img_path": name, "mask_path": "", "specie_name": name, "anomaly": 1}
    write_json(tmp_path, "meta.json", {"test": {name: [item], "bolt": [item]}})

    message = refusal(tmp_path, "meta")

    assert message.replace("\n", "").isprintable()
    assert message.encode()


def test_a_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    picture(tmp_path, "a\u2028b.png", "c.png")
    rows = [{"image_path": path, "label": 0} for path in ("a\u2028b.png", "c.png")]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a.jsonl").write_text(text, "utf-8")

    assert build(tmp_path, "list").manifest.n_images == 2


def test_a_list_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")

    assert "list.csv: cannot be read: a pipe" in refusal(tmp_path, "list")


def test_a_list_may_lie_anywhere_but_what_it_names_may_not(tmp_path: Path) -> None:
    picture(tmp_path / "root", "a.png")
    picture(tmp_path, "b.png")
    outside = str(tmp_path / "b.png")
    rows = [{"image_path": path, "label": 0} for path in ("a.png", outside)]
    write_lines(tmp_path, "list.jsonl", rows[:1])
    write_lines(tmp_path, "both.jsonl", rows)

    listed = build(tmp_path / "root", "list", list_file=str(tmp_path / "list.jsonl"))

    assert images(listed) == ["a.png"]
    message = refusal(tmp_path / "root", "list", list_file=str(tmp_path / "both.jsonl"))
    assert f"{outside}: both.jsonl line 2: the path is absolute" in message


def test_links_out_of_the_root_are_read_when_asked_for_and_loops_still_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    picture(tmp_path, "disk/cut/0.png")
    picture(root, "good/0.png")
    (root / "cut").symlink_to(tmp_path / "disk/cut")
    (tmp_path / "disk/cut/up").symlink_to(tmp_path / "disk")

    assert "cut: a link that points out of the root" in refusal(root, "folder")
    message = refusal(root, "folder", follow_links=True)
    assert "leaves the root" not in message
    assert "symlink loop" in message
    (tmp_path / "disk/cut/up").unlink()
    assert build(root, "folder", follow_links=True).manifest.labels.tolist() == [1, 0]


def test_the_largest_images_of_real_iad_are_taken_and_other_lists_can_be_named(
    tmp_path: Path,
) -> None:
    for size in (256, 1024, 512):
        picture(tmp_path, f"realiad_{size}/tape/OK/S0001/a.jpg")
    entry = {"category": "tape", "anomaly_class": "OK", "image_path": "OK/S0001/a.jpg"}
    content = {"meta": {"prefix": "tape/"}, "train": [], "test": [entry | {"mask_path": None}]}
    write_json(tmp_path, "realiad_jsons/realiad_jsons/tape.json", {**content, "test": []})
    write_json(tmp_path, "realiad_jsons/realiad_jsons_sv/tape.json", content)

    built = build(tmp_path, "real-iad", list_file="realiad_jsons/realiad_jsons_sv")

    assert images(built) == ["realiad_1024/tape/OK/S0001/a.jpg"]
    assert "no images (1)" in refusal(tmp_path, "real-iad")


def test_a_category_below_another_folder_is_refused_rather_than_defective(tmp_path: Path) -> None:
    picture(tmp_path, "bolt/good/0.png", "bolt/cut/0.png", "nut/good/0.png")

    assert "good below bolt: give the folder above good" in refusal(tmp_path, "folder")


def test_images_beside_class_folders_are_left_out_and_named(tmp_path: Path) -> None:
    picture(tmp_path, "overview.png", "good/0.png", "cut/0.png")

    built = build(tmp_path, "folder")

    assert built.manifest.n_images == 2
    assert "1 x image outside good/ and defect folders, left out: overview.png" in built.warnings[0]


def test_what_lies_deeper_than_a_tree_says_is_not_lost_in_silence(tmp_path: Path) -> None:
    bolts(tmp_path)
    picture(tmp_path, "bolt/test/cut/more/9.png")

    assert "bolt/test/cut/more: images below a class folder" in refusal(tmp_path, "mvtec")


def test_masks_flat_in_ground_truth_are_not_lost_in_silence(tmp_path: Path) -> None:
    picture(tmp_path, "bolt/test/cut/0.png")
    mask(tmp_path, "bolt/ground_truth/0_mask.png")

    assert "expected masks in a folder for each class" in refusal(tmp_path, "mvtec")


def test_network_drives_leave_thumbnails_that_are_no_images(tmp_path: Path) -> None:
    picture(tmp_path, "good/0.png", "good/@eaDir/0.png", "__MACOSX/good/0.png", "good/._0.png")
    picture(tmp_path, "cut/0.png")

    assert images(build(tmp_path, "folder")) == ["cut/0.png", "good/0.png"]


def test_two_grey_pictures_are_images_where_no_picture_is_their_twin(tmp_path: Path) -> None:
    for number, path in enumerate(("good/0.png", "cut/0.png", "cut/1.png")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        scan = Image.new("1", (9, 9))
        scan.putpixel((number, 3), 1)
        scan.save(tmp_path / path)

    assert build(tmp_path, "folder").manifest.n_images == 3


@pytest.mark.parametrize("name", ["0_mask.png", "0-GT.png", "0_label.bmp", "0.jpg"])
def test_masks_beside_the_images_of_a_tree_are_no_images(tmp_path: Path, name: str) -> None:
    # beside a JPEG a PNG of the same stem is a mask where it has two greys; here it is the image
    image, other = ("0.bmp", "0.png") if name == "0.jpg" else ("0.png", name)
    picture(tmp_path, "bolt/test/good/5.png", f"bolt/test/cut/{image}")
    mask(tmp_path, f"bolt/test/cut/{other}")

    assert f"bolt/test/cut/{other}: of bolt/test/cut/{image}" in refusal(tmp_path, "mvtec")


def test_masks_of_a_tree_that_fit_no_image_are_not_taken_for_none(tmp_path: Path) -> None:
    picture(tmp_path, "bolt/test/cut/0.png")
    mask(tmp_path, "bolt/ground_truth/cut/other.png")

    assert "defective image without a mask (1)" in refusal(tmp_path, "mvtec")


@pytest.mark.parametrize("name", ["mask_0.png", "GT-0.png", "label.0.png", "0_seg.png"])
def test_masks_may_be_named_before_or_after_their_image(tmp_path: Path, name: str) -> None:
    picture(tmp_path, "bolt/test/cut/0.png")
    mask(tmp_path, f"bolt/ground_truth/cut/{name}")

    assert build(tmp_path, "mvtec").manifest.column("mask_pixels") == [6]


def test_pictures_in_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    bolts(tmp_path)
    picture(tmp_path / "plain", "good/0.png", "cut/0.png")
    for path in ("bolt/test/good/9.gif", "plain/good/9.HEIC"):
        (tmp_path / path).write_bytes(b"GIF89a")

    for layout, root in (("mvtec", tmp_path), ("folder", tmp_path / "plain")):
        (warning,) = build(root, layout).warnings  # type: ignore[arg-type]
        assert warning.startswith("1 x picture in a format that is not read, left out: ")


def test_a_row_with_several_masks_is_refused_rather_than_stripped_of_them(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")
    rows = [{"image_path": "a.png", "label": 1, "mask_path": ["m/0.png", "m/1.png"]}]
    write_lines(tmp_path, "list.jsonl", rows)

    assert "expected one mask as text, or null" in refusal(tmp_path, "list")


def test_masks_of_a_class_that_is_not_there_are_named(tmp_path: Path) -> None:
    picture(tmp_path, "bolt/test/cuts/0.png")
    mask(tmp_path, "bolt/ground_truth/cut/0_mask.png")

    message = refusal(tmp_path, "mvtec")

    assert "bolt/ground_truth/cut: no class of images has this name" in message
    assert "defective image without a mask (1)" in message


def test_a_defect_may_be_called_label_where_its_masks_say_so(tmp_path: Path) -> None:
    picture(tmp_path, "bolt/test/label/0.png", "bolt/test/good/1.png")
    assert "bolt/test/label: masks among the classes" in refusal(tmp_path, "mvtec")

    mask(tmp_path, "bolt/ground_truth/label/0_mask.png")

    assert build(tmp_path, "mvtec").manifest.column("defect") == ["good", "label"]


def test_a_category_without_a_test_folder_is_named_also_where_all_is_asked_for(
    tmp_path: Path,
) -> None:
    bolts(tmp_path)
    picture(tmp_path, "nut/train/good/0.png")

    (warning,) = build(tmp_path, "mvtec", "all").warnings

    assert warning == "1 x category without an image in this split: nut: no image in test"


def test_masks_of_an_image_have_one_digest_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = "pin/ground_truth/bent/000"
    picture(tmp_path, "pin/test/bent/000.png")
    mask(tmp_path, f"{folder}/000.png")
    mask(tmp_path, f"{folder}/001.png", columns=(9,))
    lines = [
        hashlib.sha256((tmp_path / folder / name).read_bytes()).hexdigest() + "\n"
        for name in ("000.png", "001.png")
    ]

    manifest = build(tmp_path, "loco").manifest

    assert manifest.column("mask_id") == [hashlib.sha256("".join(lines).encode()).hexdigest()]
    assert manifest.column("mask_path") == [folder]


def test_masks_of_an_image_must_have_one_size(tmp_path: Path) -> None:
    folder = "pin/ground_truth/bent/000"
    picture(tmp_path, "pin/test/bent/000.png")
    mask(tmp_path, f"{folder}/000.png")
    Image.new("L", (3, 3)).save(tmp_path / folder / "001.png")

    assert f"{folder}: masks of different sizes in this folder" in refusal(tmp_path, "loco")


@pytest.mark.parametrize("name", ["x" * 300, "~nobody/list.csv", "a\0b"])
def test_a_list_that_cannot_be_there_is_named(tmp_path: Path, name: str) -> None:
    assert "named by --list-file, found neither below" in refusal(tmp_path, "list", list_file=name)


def test_a_root_that_cannot_be_there_is_named(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(DatasetError, match="no such folder"):
            build(tmp_path / name, "mvtec")
