"""Verify, copy and garbage: what they find, what they do, and what they leave alone."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache.find import find_caches
from cache.gc import find_garbage, remove_garbage
from cache.objects import GRACE_SECONDS, Objects
from cache.reader import open_cache
from cache.share import copy_cache
from cache.store import open_store
from cache.verify import verify_cache
from spg_core.errors import CorruptStore, IncompleteCache, StoreError
from tests.cache_samples import (
    flip_byte,
    folder_digests,
    make_sample,
    new_writer,
    write_cache,
    write_pending,
)
from tests.s3_server import s3_url  # noqa: F401 - the fixture

SAMPLE = make_sample()


@pytest.fixture
def store(tmp_path: Path) -> tuple[Objects, str, Path]:
    objects = open_store(tmp_path / "store")
    folder = write_cache(objects, SAMPLE).folder
    return objects, folder, tmp_path / "store" / folder


def test_a_sound_cache_verifies_whole(store: tuple[Objects, str, Path]) -> None:
    objects, folder, _ = store
    bytes_seen: list[int] = []

    report = verify_cache(objects, folder, bytes_seen.append)

    assert report.is_sound
    assert report.checked_objects == 9 + 4 + 2  # shards, zarr.json, manifest and record
    assert len(bytes_seen) == 9


def test_every_bad_object_is_named_with_its_images(store: tuple[Objects, str, Path]) -> None:
    objects, folder, path = store
    flip_byte(path / "tokens.zarr/tokens/c/1/0/0", 60 * 3)
    flip_byte(path / "tokens.zarr/tokens/c/1/0/0", 60 * 5)
    flip_byte(path / "tokens.zarr/masks/c/0/0/0", -1)
    flip_byte(path / "manifest.parquet", 0)
    (path / "tokens.zarr/cls/c/2/0").unlink()
    (path / "tokens.zarr/tokens/zarr.json").write_text("{}")
    (path / "tokens.zarr/tokens/c/2/0/0").write_bytes(b"")

    problems = verify_cache(objects, folder).problems

    assert {(p.name.removeprefix(f"{folder}/"), p.rows, p.text) for p in problems} == {
        (
            "tokens.zarr/tokens/c/1/0/0",
            (67, 69),
            "does not match its digest; 2 image(s) spoilt: 67, 69",
        ),
        (
            "tokens.zarr/masks/c/0/0/0",
            tuple(range(64)),
            "does not match its digest; 64 image(s) spoilt: 0, 1, 2, 3, 4, 5, 6, 7, ...",
        ),
        ("tokens.zarr/cls/c/2/0", tuple(range(128, 150)), "is missing"),
        ("tokens.zarr/tokens/c/2/0/0", tuple(range(128, 150)), "has 0 bytes, 2348 were written"),
        ("manifest.parquet", (), "does not match its digest"),
        ("tokens.zarr/tokens/zarr.json", (), "does not describe the arrays of this cache"),
    }


@pytest.mark.parametrize("torn", [b"{", b"[" * 100_000], ids=["torn", "deep"])
def test_a_description_that_cannot_be_read_is_named(
    store: tuple[Objects, str, Path], torn: bytes
) -> None:
    objects, folder, path = store
    (path / "tokens.zarr/zarr.json").write_bytes(torn)

    (problem,) = verify_cache(objects, folder).problems

    assert problem.name == f"{folder}/tokens.zarr/zarr.json"
    assert problem.text.startswith("cannot be read: ")


def test_a_partial_cache_cannot_be_verified(tmp_path: Path) -> None:
    objects = open_store(tmp_path)
    writer = new_writer(objects, SAMPLE)
    write_pending(writer, SAMPLE)

    with pytest.raises(IncompleteCache, match=r"cache\.json is missing"):
        verify_cache(objects, writer.folder)


def test_a_copy_is_identical_and_a_second_one_does_nothing(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    objects, folder, path = store
    there = open_store(tmp_path / "there")

    report = copy_cache(objects, there, folder)
    again = copy_cache(objects, there, folder)

    assert (report.copied_shards, report.present_shards) == (3, 0)
    assert (again.copied_shards, again.present_shards, again.copied_bytes) == (0, 3, 0)
    assert folder_digests(tmp_path / "there" / folder) == folder_digests(path)
    assert (tmp_path / "there" / folder / "cache.json").read_bytes() == (
        path / "cache.json"
    ).read_bytes()


def test_a_cut_copy_is_resumed_with_what_is_missing(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    objects, folder, path = store
    there = open_store(tmp_path / "there")

    class Cut(Exception):
        pass

    def cut(_: int) -> None:
        raise Cut

    with pytest.raises(Cut):
        copy_cache(objects, there, folder, progress=cut, threads=1)
    assert [info.state for info in find_caches(there)] == ["partial"]

    report = copy_cache(objects, there, folder)

    assert report.present_shards >= 1
    assert report.copied_shards + report.present_shards == 3
    assert folder_digests(tmp_path / "there" / folder) == folder_digests(path)


def test_an_extraction_can_finish_a_cut_copy(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    objects, folder, path = store
    copy_cache(objects, open_store(tmp_path / "there"), folder)
    (tmp_path / "there" / folder / "cache.json").unlink()
    shutil.rmtree(tmp_path / "there" / folder / "tokens.zarr/tokens/c/1")

    write_cache(open_store(tmp_path / "there"), SAMPLE)

    assert folder_digests(tmp_path / "there" / folder) == folder_digests(path)


def test_damage_is_not_copied(store: tuple[Objects, str, Path], tmp_path: Path) -> None:
    objects, folder, path = store
    flip_byte(path / "tokens.zarr/tokens/c/1/0/0", 0)
    there = open_store(tmp_path / "there")

    with pytest.raises(CorruptStore, match=r"tokens/c/1/0/0 is not what .*1 image\(s\) spoilt: 64"):
        copy_cache(objects, there, folder)
    assert there.size(f"{folder}/tokens.zarr/tokens/c/1/0/0") is None
    assert [info.state for info in find_caches(there)] == ["partial"]


def test_damage_at_the_destination_is_found(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    objects, folder, _ = store
    there = open_store(tmp_path / "there")
    other = make_sample(seed=9)
    write_pending(new_writer(there, other), other)

    with pytest.raises(CorruptStore, match=r"there/.* is not what was written"):
        copy_cache(objects, there, folder)

    write_cache(there, other)
    with pytest.raises(StoreError, match="is complete there with other bytes"):
        copy_cache(objects, there, folder)


def test_a_copy_that_cannot_fit_is_refused_first(
    store: tuple[Objects, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, folder, _ = store
    there = open_store(tmp_path / "there")
    monkeypatch.setattr(there, "free_bytes", lambda: 7)

    with pytest.raises(StoreError, match=r"needs \d+ more bytes for tokens/visa.*, 7 are free"):
        copy_cache(objects, there, folder)
    assert find_caches(there) == []


def test_a_copy_with_objects_missing_or_cut_is_made_whole_again(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    source, folder, path = store
    target = open_store(tmp_path / "copy")
    copy_cache(source, target, folder)
    (tmp_path / "copy" / folder / "tokens.zarr/masks/c/1/0/0").unlink()
    cut = tmp_path / "copy" / folder / "tokens.zarr/tokens/c/2/0/0"
    cut.write_bytes(cut.read_bytes()[:-5])

    report = copy_cache(source, target, folder)

    assert (report.copied_shards, report.present_shards) == (2, 1)
    assert verify_cache(target, folder).is_sound
    assert folder_digests(tmp_path / "copy" / folder) == folder_digests(path)
    assert copy_cache(source, target, folder).copied_shards == 0


def test_a_damaged_source_takes_nothing_from_the_copy(
    store: tuple[Objects, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder, path = store
    target = open_store(tmp_path / "copy")
    copy_cache(source, target, folder)
    cut = tmp_path / "copy" / folder / "tokens.zarr/tokens/c/2/0/0"
    cut.write_bytes(cut.read_bytes()[:-5])
    flip_byte(path / "tokens.zarr/tokens/c/2/0/0", 0)
    before = folder_digests(tmp_path / "copy" / folder)

    def refuse(name: str) -> None:
        assert not name.startswith("tokens/"), f"{name} was deleted"

    monkeypatch.setattr(target, "delete", refuse)
    with pytest.raises(CorruptStore, match="is not what was written"):
        copy_cache(source, target, folder)
    assert folder_digests(tmp_path / "copy" / folder) == before

    flip_byte(path / "tokens.zarr/tokens/c/2/0/0", 0)
    assert copy_cache(source, target, folder).copied_shards == 1
    assert folder_digests(tmp_path / "copy" / folder) == folder_digests(path)


def test_what_is_no_shard_is_put_back_too(store: tuple[Objects, str, Path], tmp_path: Path) -> None:
    source, folder, _ = store
    target = open_store(tmp_path / "copy")
    copy_cache(source, target, folder)
    there = tmp_path / "copy" / folder
    (there / "manifest.parquet").write_bytes(b"edited")
    (there / "tokens.zarr/zarr.json").unlink()
    (there / "tokens.zarr/masks/zarr.json").write_bytes(b"{")
    same = json.dumps(json.loads((there / "tokens.zarr/cls/zarr.json").read_bytes()))
    (there / "tokens.zarr/cls/zarr.json").write_text(same)

    report = copy_cache(source, target, folder)

    assert (report.copied_shards, report.copied_bytes, report.present_shards) == (0, 0, 3)
    assert verify_cache(target, folder).is_sound
    assert (there / "tokens.zarr/cls/zarr.json").read_text() == same  # sound, so not touched
    assert not (there / "receipts").exists()


def test_a_read_only_store_can_be_copied_from_but_not_to(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    objects, folder, _ = store
    source = open_store(objects.where, read_only=True)

    assert copy_cache(source, open_store(tmp_path / "there"), folder).copied_shards == 3
    with pytest.raises(StoreError, match="read-only"):
        copy_cache(source, open_store(tmp_path / "elsewhere", read_only=True), folder)


def test_there_and_back_through_s3(
    store: tuple[Objects, str, Path],
    tmp_path: Path,
    s3_url: str,  # noqa: F811
) -> None:
    objects, folder, path = store
    remote, back = open_store(s3_url), open_store(tmp_path / "back")

    copy_cache(objects, remote, folder)
    assert verify_cache(remote, folder).is_sound
    copy_cache(remote, back, folder)

    assert folder_digests(tmp_path / "back" / folder) == folder_digests(path)
    np.testing.assert_array_equal(
        open_cache(back, "visa", "gabor").tokens(slice(None)), SAMPLE.tokens
    )


def make_old(path: Path) -> None:
    moment = path.stat().st_mtime - GRACE_SECONDS - 60
    os.utime(path, (moment, moment))


def test_only_old_leftovers_are_garbage(store: tuple[Objects, str, Path]) -> None:
    objects, folder, path = store
    (path / "receipts").mkdir()
    for name in ["tokens.zarr/.tmp-old", "tokens.zarr/.tmp-young", "receipts/00000.json", "notes"]:
        (path / name).write_bytes(b"123")
        if "young" not in name:
            make_old(path / name)
    before = folder_digests(path)

    garbage = find_garbage(objects)

    assert {(item.name.removeprefix(f"{folder}/"), item.reason) for item in garbage} == {
        ("tokens.zarr/.tmp-old", "temporary of a writer that ended"),
        ("receipts/00000.json", "in a complete cache, but no part of it"),
        ("notes", "in a complete cache, but no part of it"),
    }
    assert folder_digests(path) == before
    assert remove_garbage(objects, garbage) == 9
    assert find_garbage(objects) == []
    assert verify_cache(objects, folder).is_sound


def test_caches_go_only_when_named_and_the_record_goes_first(
    store: tuple[Objects, str, Path],
) -> None:
    objects, folder, path = store
    assert find_garbage(objects, grace_seconds=0) == []

    garbage = find_garbage(objects, remove=find_caches(objects))

    assert garbage[0].name == f"{folder}/cache.json"
    remove_garbage(objects, garbage)
    assert find_caches(objects) == []
    assert not path.exists()


def test_a_partial_cache_is_left_alone_unless_named(tmp_path: Path) -> None:
    objects = open_store(tmp_path)
    write_pending(new_writer(objects, SAMPLE), SAMPLE)

    assert find_garbage(objects, grace_seconds=0) == []
    remove_garbage(objects, find_garbage(objects, remove=find_caches(objects)))

    assert find_caches(objects) == []


def link_away(path: Path, place: Path) -> Path:
    """Move a folder elsewhere and leave a link to it, as people do when a disk is full."""
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    path.symlink_to(place, target_is_directory=True)
    return place


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_nothing_behind_a_link_is_removed(
    store: tuple[Objects, str, Path], tmp_path: Path, depth: int
) -> None:
    objects, folder, path = store
    for name in [".tmp-old", "notes", "tokens.zarr/.tmp-0123456789abcdef"]:
        (path / name).write_bytes(b"123")
        make_old(path / name)
    linked = (tmp_path / "store").joinpath(*folder.split("/")[: depth + 1])
    colleague = link_away(linked, tmp_path / "colleague" / linked.name)
    before = folder_digests(colleague)

    assert find_garbage(objects, grace_seconds=0) == []
    with pytest.raises(StoreError, match=rf"reached through a link, {linked}; .*remove the link"):
        find_garbage(objects, remove=find_caches(objects))

    assert folder_digests(colleague) == before
    assert open_cache(objects, "visa", "gabor").n_images == 150  # reading through links is fine


def test_links_inside_a_named_cache_go_and_what_they_lead_to_stays(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    objects, _, path = store
    place = link_away(path / "tokens.zarr/tokens", tmp_path / "elsewhere")
    shard = path / "tokens.zarr/masks/c/0/0/0"
    shard.rename(tmp_path / "shard")
    shard.symlink_to(tmp_path / "shard")
    before = folder_digests(tmp_path / "elsewhere")

    remove_garbage(objects, find_garbage(objects, remove=find_caches(objects)))

    assert folder_digests(place) == before
    assert (tmp_path / "shard").is_file()
    assert not shard.is_symlink()


def test_a_store_that_is_a_link_itself_is_tidied(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    _, folder, path = store
    (path / ".tmp-old").write_bytes(b"123")
    make_old(path / ".tmp-old")
    (tmp_path / "link").symlink_to(tmp_path / "store", target_is_directory=True)

    garbage = find_garbage(open_store(tmp_path / "link"))

    assert [item.name for item in garbage] == [f"{folder}/.tmp-old"]


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    for name in ["work/.tmp-0123456789abcdef", "tokens/a/b/.tmp-old", ".tmp-old", "guides/me.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
        make_old(tmp_path / name)
    before = folder_digests(tmp_path)

    with pytest.raises(StoreError, match=r"is no store: .* nothing there is touched"):
        find_garbage(open_store(tmp_path), grace_seconds=0)

    assert folder_digests(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert find_garbage(open_store(tmp_path / "empty")) == []


def test_only_a_stores_own_temporaries_go_from_a_shared_folder(
    store: tuple[Objects, str, Path], tmp_path: Path
) -> None:
    objects, folder, _ = store
    hexes = "0123456789abcdef"
    ours = {
        f".tmp-probe-{hexes}",
        f"saes/visa-c1024-01234567/.tmp-{hexes}",
        f"scores/visa-01234567/maps.zarr/.tmp-{hexes}",
        f"figures/fig3/.tmp-{hexes}",
        f"{folder}/tokens.zarr/tokens/c/.tmp-other",
    }
    theirs = {
        ".tmp-old",
        f".tmp-{hexes}",
        f"thesis/.tmp-{hexes}",
        f"figures/.tmp-{hexes}",
        "figures/fig3/.tmp-photoshop",
        f"saes/.tmp-{hexes}",
        "guides/mine/.tmp-backup",
        f"tokens/visa/.tmp-{hexes}",
        f"tokens/visa/gabor/notes/.tmp-{hexes}",
    }
    for name in ours | theirs:
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"123")
        make_old(path)

    remove_garbage(objects, find_garbage(objects))

    assert not any((tmp_path / "store" / name).exists() for name in ours)
    assert all((tmp_path / "store" / name).exists() for name in theirs)


def test_a_first_write_that_was_killed_at_once_is_swept(tmp_path: Path) -> None:
    objects = open_store(tmp_path)
    name = "tokens/visa/gabor/0123456789abcdef/tokens.zarr/.tmp-0123456789abcdef"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"123")
    make_old(tmp_path / name)

    assert [item.name for item in find_garbage(objects)] == [name]
