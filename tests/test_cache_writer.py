"""Exactly-once writing: what is stored, in which order, and after every kind of accident."""

import hashlib
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from cache.find import cache_state, find_caches
from cache.key import cache_key
from cache.objects import GRACE_SECONDS
from cache.record import parse_record
from cache.shard import crc32c
from cache.space import check_free_space
from cache.store import open_store
from cache.verify import verify_cache
from spg_core.errors import CorruptStore, IncompleteCache, ManifestDiffers, StoreError
from tests.cache_samples import (
    COVERS,
    MANIFEST_BYTES,
    flip_byte,
    folder_digests,
    make_sample,
    new_writer,
    write_cache,
    write_pending,
)
from tests.crashing_writer import context, race, start, write_all


@pytest.fixture(scope="module")
def one_go(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("one_go")
    writer = write_cache(open_store(folder), make_sample())
    return folder_digests(folder / writer.folder)


def test_the_record_states_what_is_stored(tmp_path: Path) -> None:
    sample = make_sample()
    writer = write_cache(open_store(tmp_path), sample)
    folder = tmp_path / writer.folder

    body = json.loads((folder / "cache.json").read_bytes())

    shard = (folder / "tokens.zarr/tokens/c/2/0/0").read_bytes()
    assert body["key"] == cache_key(COVERS) == folder.name
    assert body["covers"] == COVERS
    assert body["arrays"]["masks"] == {"shape": [150, 7, 9], "dtype": "uint8"}
    assert body["shards"][2]["rows"] == [128, 150]
    assert body["shards"][2]["objects"]["tokens"] == {
        "name": "tokens.zarr/tokens/c/2/0/0",
        "bytes": 22 * 6 * 5 * 2 + 1028,
        "blake3": blake3(shard).hexdigest(),
        "crc32c": "".join(f"{crc32c(shard[i * 60 : i * 60 + 60]):08x}" for i in range(22)),
    }
    assert body["manifest"]["sha256"] == hashlib.sha256(MANIFEST_BYTES).hexdigest()
    assert not (folder / "receipts").exists()


def test_asking_makes_nothing(tmp_path: Path) -> None:
    writer = new_writer(open_store(tmp_path / "store"), make_sample())

    assert (writer.state(), writer.pending_shards()) == ("absent", [0, 1, 2])
    check_free_space([writer])
    assert not (tmp_path / "store").exists()


def test_a_cache_is_absent_then_partial_then_complete(tmp_path: Path) -> None:
    sample = make_sample()
    objects = open_store(tmp_path)
    writer = new_writer(objects, sample)

    assert sample.cls is not None
    assert sample.masks is not None
    writer.write_shard(1, sample.tokens[64:128], sample.cls[64:128], sample.masks[64:128])

    assert (writer.state(), writer.pending_shards()) == ("partial", [0, 2])
    assert [info.state for info in find_caches(objects)] == ["partial"]
    with pytest.raises(IncompleteCache, match="lacks 2 shards, first 0"):
        writer.finish(MANIFEST_BYTES)

    write_pending(writer, sample)
    writer.finish(MANIFEST_BYTES)

    assert (writer.state(), writer.pending_shards()) == ("complete", [])


def test_the_estimate_is_exact_but_for_masks(tmp_path: Path) -> None:
    sample = make_sample(extras=False)
    writer = new_writer(open_store(tmp_path), sample)

    assert writer.estimated_bytes == 150 * 6 * 5 * 2 + 3 * 1028


def test_writing_it_all_again_changes_nothing(tmp_path: Path, one_go: dict[str, str]) -> None:
    sample = make_sample()
    objects = open_store(tmp_path)
    writer = write_cache(objects, sample)
    before = (tmp_path / writer.folder / "cache.json").read_bytes()

    second = new_writer(objects, sample)
    for shard in range(3):
        rows = slice(second.shard_rows(shard).start, second.shard_rows(shard).stop)
        assert sample.cls is not None
        assert sample.masks is not None
        second.write_shard(shard, sample.tokens[rows], sample.cls[rows], sample.masks[rows])
    second.finish(MANIFEST_BYTES)

    assert folder_digests(tmp_path / writer.folder) == one_go
    assert (tmp_path / writer.folder / "cache.json").read_bytes() == before


def test_killed_at_any_system_call_it_resumes_to_the_same_bytes(
    tmp_path: Path, one_go: dict[str, str]
) -> None:
    # About 200 calls make the sample; the strides are coprime to the seven calls of one object.
    kills = 0
    for killed_at in [*range(3, 200, 17), 4, 5, 6, 7]:
        process = start(write_all, tmp_path, 0, killed_at)
        process.join(60)
        kills += process.exitcode == -signal.SIGKILL
        if cache_state(open_store(tmp_path), one_go_folder(tmp_path)) == "complete":
            break
    assert kills >= 3

    write_all(tmp_path, 0)
    folder = tmp_path / one_go_folder(tmp_path)
    for temporary in folder.rglob(".tmp-*"):
        temporary.unlink()
    assert folder_digests(folder) == one_go


def one_go_folder(_: Path) -> str:
    return f"tokens/visa/gabor/{cache_key(COVERS)}"


@pytest.mark.parametrize("killed_at", [1, 30, 77, 120, 171])
def test_one_kill_then_one_run_gives_the_same_bytes(
    tmp_path: Path, one_go: dict[str, str], killed_at: int
) -> None:
    process = start(write_all, tmp_path, 0, killed_at)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL

    write_all(tmp_path, 0)

    folder = tmp_path / one_go_folder(tmp_path)
    for temporary in folder.rglob(".tmp-*"):
        temporary.unlink()
    assert folder_digests(folder) == one_go


def test_two_writers_at_once_both_end_well(tmp_path: Path, one_go: dict[str, str]) -> None:
    barrier = context().Barrier(2)
    both = [start(race, tmp_path, 0, barrier) for _ in range(2)]
    for process in both:
        process.join(60)

    assert [process.exitcode for process in both] == [0, 0]
    assert folder_digests(tmp_path / one_go_folder(tmp_path)) == one_go


def test_two_gpus_that_disagree_still_make_a_sound_cache(tmp_path: Path) -> None:
    barrier = context().Barrier(2)
    both = [start(race, tmp_path, seed, barrier) for seed in (1, 2)]
    for process in both:
        process.join(60)

    assert [process.exitcode for process in both] == [0, 0]
    assert verify_cache(open_store(tmp_path), one_go_folder(tmp_path)).is_sound


def test_a_receipt_describes_the_bytes_that_are_stored_not_ours(tmp_path: Path) -> None:
    theirs, ours = make_sample(seed=1, extras=False), make_sample(seed=2, extras=False)
    objects = open_store(tmp_path)
    write_pending(new_writer(objects, theirs), theirs)
    for receipt in list(objects.walk(f"{one_go_folder(tmp_path)}/receipts")):
        objects.delete(receipt.name)

    writer = write_cache(objects, ours)

    assert verify_cache(objects, writer.folder).is_sound


@pytest.mark.parametrize("damage", ["missing", "short", "receipt torn", "receipt of other bytes"])
def test_a_damaged_shard_of_a_partial_cache_is_made_again(
    tmp_path: Path, one_go: dict[str, str], damage: str
) -> None:
    sample = make_sample()
    writer = new_writer(open_store(tmp_path), sample)
    write_pending(writer, sample)
    folder = tmp_path / writer.folder
    shard, receipt = folder / "tokens.zarr/tokens/c/1/0/0", folder / "receipts/00001.json"
    match damage:
        case "missing":
            shard.unlink()
        case "short":
            shard.write_bytes(shard.read_bytes()[:-100])
        case "receipt torn":
            receipt.write_bytes(receipt.read_bytes()[:50])
        case _:
            body = json.loads(receipt.read_bytes())
            body["objects"]["tokens"]["blake3"] = "0" * 64
            receipt.write_text(json.dumps(body))
            shard.unlink()
    assert writer.pending_shards() == [1]

    write_cache(open_store(tmp_path), sample)

    assert folder_digests(folder) == one_go


def test_a_full_disk_stops_with_both_numbers_and_is_resumed(
    tmp_path: Path, one_go: dict[str, str]
) -> None:
    sample = make_sample()
    writer = new_writer(open_store(tmp_path), sample)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(StoreError, match=r"no room for .*tokens.*: 4868 bytes needed, \d+ byt"):
            write_pending(writer, sample)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob(".tmp-*"))

    write_cache(open_store(tmp_path), sample)

    assert folder_digests(tmp_path / writer.folder) == one_go


def test_too_little_space_is_refused_up_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_writer(open_store(tmp_path), make_sample(extras=False))
    monkeypatch.setattr(writer.objects, "free_bytes", lambda: 100)

    with pytest.raises(StoreError, match=r"needs about 12084 more bytes .*, 100 .*are free"):
        check_free_space([writer])


def test_old_temporaries_are_swept_and_young_ones_kept(tmp_path: Path) -> None:
    sample = make_sample(extras=False)
    writer = new_writer(open_store(tmp_path), sample)
    folder = tmp_path / writer.folder / "tokens.zarr"
    folder.mkdir(parents=True)
    for name, age in [(".tmp-old", GRACE_SECONDS + 60), (".tmp-young", GRACE_SECONDS - 600)]:
        (folder / name).write_bytes(b"x")
        moment = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (moment, moment))

    write_pending(writer, sample)

    assert sorted(path.name for path in folder.glob(".tmp-*")) == [".tmp-young"]


def test_a_cache_finished_by_another_between_two_looks_is_not_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = make_sample(extras=False)
    objects = open_store(tmp_path)
    write_pending(new_writer(objects, sample), sample)
    late = new_writer(objects, sample)
    real_walk = objects.walk

    def finish_first(prefix: str) -> Any:
        monkeypatch.setattr(objects, "walk", real_walk)
        new_writer(objects, sample).finish(MANIFEST_BYTES)
        return objects.walk(prefix)

    assert late.state() == "partial"
    looks = iter(["partial"])
    monkeypatch.setattr(late, "state", lambda: next(looks, "complete"))
    monkeypatch.setattr(objects, "walk", finish_first)

    assert late.pending_shards() == []


def test_values_that_cannot_be_stored_name_the_image(tmp_path: Path) -> None:
    sample = make_sample(extras=False)
    sample.tokens[70, 2, 1] = np.inf
    writer = new_writer(open_store(tmp_path), sample)

    with pytest.raises(StoreError, match="tokens of image row 70 hold NaN or values beyond"):
        write_pending(writer, sample)
    assert writer.pending_shards() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tokens": np.zeros((64, 5, 6), "f2")},
            r"tokens of shard 0 are float16 \(64, 5, 6\), exp",
        ),
        ({"tokens": np.zeros((64, 6, 5), "f4")}, "tokens of shard 0 are float32"),
        ({"cls": None}, "this cache has cls, the shard differs"),
        ({"masks": np.full((64, 7, 9), 255, "u1")}, "masks of shard 0 hold 255, expected 0 and 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    sample = make_sample()
    assert sample.cls is not None
    assert sample.masks is not None
    values = {"tokens": sample.tokens[:64], "cls": sample.cls[:64], "masks": sample.masks[:64]}

    with pytest.raises(StoreError, match=message):
        new_writer(open_store(tmp_path), sample).write_shard(0, **{**values, **change})
    assert list(tmp_path.iterdir()) == []


def test_another_manifest_for_the_same_tokens_is_an_error_of_its_own(tmp_path: Path) -> None:
    sample = make_sample(extras=False)
    writer = write_cache(open_store(tmp_path), sample)

    with pytest.raises(ManifestDiffers, match="is complete, with another manifest"):
        writer.finish(b"other labels")


def test_a_shard_of_a_complete_cache_is_never_replaced(tmp_path: Path) -> None:
    sample = make_sample(extras=False)
    writer = write_cache(open_store(tmp_path), sample)
    shard = tmp_path / writer.folder / "tokens.zarr/tokens/c/0/0/0"
    flip_byte(shard, -1)
    damaged = shard.read_bytes()

    with pytest.raises(CorruptStore, match="tokens/c/0/0/0: its shard index does not match"):
        writer.write_shard(0, sample.tokens[:64])
    assert shard.read_bytes() == damaged


def test_another_array_under_the_same_key_is_refused(tmp_path: Path) -> None:
    write_cache(open_store(tmp_path), make_sample(extras=False))
    other = new_writer(open_store(tmp_path), make_sample(patches=7, extras=False))

    with pytest.raises(CorruptStore, match=r"zarr.json does not describe this cache"):
        other.write_shard(0, np.zeros((64, 7, 5), np.float16))


def test_every_torn_or_edited_record_is_refused_and_named(tmp_path: Path) -> None:
    writer = write_cache(open_store(tmp_path), make_sample())
    data = (tmp_path / writer.folder / "cache.json").read_bytes()
    rng = np.random.default_rng(0)

    for cut in rng.integers(0, len(data), 50).tolist():
        with pytest.raises(CorruptStore, match=r"cache\.json"):
            parse_record(data[:cut], "cache.json", writer.key)
    for position in rng.integers(0, len(data), 300).tolist():
        edited = bytearray(data)
        edited[position] ^= 1 << int(rng.integers(0, 7))
        try:
            same = json.loads(edited) == json.loads(data)
        except ValueError:
            same = False
        if not same:  # a changed space changes nothing
            with pytest.raises(CorruptStore, match=r"cache\.json"):
                parse_record(bytes(edited), "cache.json", writer.key)
