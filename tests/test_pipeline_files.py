"""Files outside the store are written whole, under a name that is free, ours, or was named."""

import os
from pathlib import Path

import pytest

from pipeline.files import check_place, new_file, write_file
from spg_core.errors import StoreError


def never(path):
    return False


def test_a_file_is_written_anew_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "t.csv"

    for data in (b"one", b"two"):
        check_place(path, make_folders=True)
        with new_file(path, make_folders=True) as temporary:
            temporary.write_bytes(data)

        assert path.read_bytes() == data
        assert [entry.name for entry in path.parent.iterdir()] == ["t.csv"]


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"before")

    def stop(temporary):
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), new_file(path) as temporary:
        stop(temporary)

    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_we_chose_never_replaces_a_file_of_somebody_else(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text("{}")

    with pytest.raises(StoreError, match=r"meta\.json is there and was not written by this"):
        check_place(path, never)
    with pytest.raises(StoreError, match=r"meta\.json is there and was not written by this"):
        write_file(path, b"ours", never)

    assert path.read_text() == "{}"
    write_file(path, b"ours", lambda there: there.read_text() == "{}")
    assert path.read_bytes() == b"ours"


def test_a_file_that_appears_during_the_work_is_kept(tmp_path):
    path = tmp_path / "x.json"
    check_place(path, never)

    with pytest.raises(StoreError, match="was not written by this"), new_file(path, never) as new:
        [file.write_bytes(b"theirs") for file in (new, path)]

    assert path.read_bytes() == b"theirs"


def test_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"photo")
    (tmp_path / "out.png").symlink_to("photo.png")

    write_file(tmp_path / "out.png", b"picture")

    assert (tmp_path / "photo.png").read_bytes() == b"photo"
    assert (tmp_path / "out.png").read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "no regular file"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("nowhere"), "no regular file"),
        (lambda path: path.symlink_to("/dev/null"), "no regular file"),
        (lambda path: path.symlink_to(path.name), "no regular file"),
    ],
    ids=["folder", "fifo", "dangling", "device", "loop"],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, make, reason):
    path = tmp_path / "t.csv"
    make(path)

    with pytest.raises(StoreError, match=f"cannot be written: it is there and is {reason}"):
        check_place(path)


def test_impossible_folders_and_names_are_told_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    for place in ("file/t.csv", "file/more/t.csv", "none/t.csv", "n" * 300 + ".csv"):
        with pytest.raises(StoreError, match=r"cannot (be written|write)") as told:
            check_place(tmp_path / place)
        assert "\n" not in str(told.value)
        with pytest.raises(StoreError, match=r"cannot (be written|write)"):
            write_file(tmp_path / place, b"x")
    with pytest.raises(StoreError, match="file is no folder"):
        check_place(tmp_path / "file" / "more" / "t.csv", make_folders=True)


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path):
    path = tmp_path / "t.csv"

    def fill(temporary):
        temporary.write_bytes(b"half")
        Path("/dev/full").write_bytes(b"the rest")

    with pytest.raises(StoreError, match="No space left on device"), new_file(path) as temporary:
        fill(temporary)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("record", "stored"),
    [
        ("scores/a/metrics.json", "scores/a/images.parquet"),
        ("tokens/a/b/c/cache.json", "tokens/a/b/c/manifest.parquet"),
        ("tokens/a/b/c/cache.json", "tokens/a/b/c/tokens.zarr/zarr.json"),
        ("sweeps/a/sweep.json", "sweeps/a/sweep.json"),
    ],
)
def test_no_part_of_a_store_is_written_over(tmp_path, record, stored):
    for name in (record, stored):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"stored")

    with pytest.raises(StoreError, match="belongs to what is stored in"):
        check_place(tmp_path / stored)
    with pytest.raises(StoreError, match="choose another place"):
        write_file(tmp_path / stored, b"a table")
    assert (tmp_path / stored).read_bytes() == b"stored"
