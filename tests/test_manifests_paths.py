"""Paths and links on disk: what may stand in a manifest, and what leads out of the root."""

import os
from pathlib import Path

import pytest

from manifests.layouts import list_entries
from manifests.lists import Entry
from manifests.paths import list_folder, path_problem
from manifests.problems import Layout, Problem


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


MVTEC = (
    "bolt/train/good/000.png",
    "bolt/test/good/000.png",
    "bolt/test/scratch/000.png",
    "bolt/test/scratch/001.png",
    "bolt/ground_truth/scratch/000_mask.png",
    "bolt/ground_truth/scratch/001_mask.png",
)


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
