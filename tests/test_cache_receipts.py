"""A resumed cache trusts no shard that it has not read; verify reads what the values are."""

import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numcodecs.zstd import Zstd

from cache.find import read_record
from cache.layout import INDEX_BYTES
from cache.local_objects import LocalObjects
from cache.objects import SMALL_OBJECT_BYTES
from cache.record import CacheRecord, Receipt, StoredObject, record_to_bytes
from cache.shard import crc32c, encode_index, new_digest
from cache.store import open_store
from cache.verify import verify_cache
from spg_core.errors import IncompleteCache
from tests.cache_samples import (
    MANIFEST_BYTES,
    flip_byte,
    folder_digests,
    make_sample,
    new_writer,
    write_cache,
    write_pending,
)

SAMPLE = make_sample()
SHARD = {"tokens": "tokens/c/1/0/0", "cls": "cls/c/1/0", "masks": "masks/c/1/0/0"}


@pytest.fixture(scope="module")
def one_go(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("one_go")
    return folder_digests(folder / write_cache(open_store(folder), SAMPLE).folder)


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """The folder of a cache that lacks nothing but its end."""
    writer = new_writer(open_store(tmp_path), SAMPLE)
    write_pending(writer, SAMPLE)
    return tmp_path / writer.folder


def flip(shard: Path) -> None:
    flip_byte(shard, 3)


def flip_index(shard: Path) -> None:
    flip_byte(shard, -40)


def zeros(shard: Path) -> None:
    """What some file systems leave of a file after a power cut."""
    shard.write_bytes(bytes(shard.stat().st_size))


def another(shard: Path) -> None:
    """A whole, sound shard of the same size, of other images."""
    shard.write_bytes((shard.parents[2] / "0" / "0" / "0").read_bytes())


@pytest.mark.parametrize("receipt", ["there", "missing", "torn", "of other bytes"])
@pytest.mark.parametrize(
    ("array", "damage"),
    [
        ("tokens", flip),
        ("tokens", flip_index),
        ("tokens", zeros),
        ("tokens", another),
        ("cls", flip),
        ("masks", flip),
    ],
)
def test_a_shard_of_right_size_and_wrong_bytes_is_made_again(
    partial: Path,
    tmp_path: Path,
    one_go: dict[str, str],
    array: str,
    damage: Callable[[Path], None],
    receipt: str,
) -> None:
    damage(partial / "tokens.zarr" / SHARD[array])
    stated = partial / "receipts/00001.json"
    match receipt:
        case "missing":
            stated.unlink()
        case "torn":
            stated.write_bytes(stated.read_bytes()[:100])
        case "of other bytes":
            data = stated.read_bytes()
            digest = data.index(b'blake3":"') + 9
            stated.write_bytes(data[:digest] + b"00" + data[digest + 2 :])
    assert new_writer(open_store(tmp_path), SAMPLE).pending_shards() == [1]

    write_cache(open_store(tmp_path), SAMPLE)

    assert folder_digests(partial) == one_go
    assert verify_cache(open_store(tmp_path), str(partial.relative_to(tmp_path))).is_sound


def test_a_spoilt_shard_is_named_and_the_others_are_counted(
    partial: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip(partial / "tokens.zarr" / SHARD["tokens"])
    read: list[tuple[int, int]] = []

    with caplog.at_level(logging.WARNING):
        new_writer(open_store(tmp_path), SAMPLE).pending_shards(lambda *n: read.append(n))

    assert read == [(1, 3)] * 3
    (message,) = caplog.messages
    assert "tokens/c/1/0/0 is not what its receipt says; it is made again" in message


@pytest.mark.parametrize("looks", [True, False])
def test_a_cache_is_not_finished_over_a_spoilt_shard(
    partial: Path, tmp_path: Path, looks: bool
) -> None:
    flip(partial / "tokens.zarr" / SHARD["tokens"])
    writer = new_writer(open_store(tmp_path), SAMPLE)
    if looks:
        writer.pending_shards()

    with pytest.raises(IncompleteCache, match="lacks 1 shards, first 1"):
        writer.finish(MANIFEST_BYTES)
    assert not (partial / "cache.json").exists()


def test_a_shard_mended_by_another_writer_counts(
    partial: Path, tmp_path: Path, one_go: dict[str, str]
) -> None:
    flip(partial / "tokens.zarr" / SHARD["tokens"])
    writer = new_writer(open_store(tmp_path), SAMPLE)
    assert writer.pending_shards() == [1]

    write_pending(new_writer(open_store(tmp_path), SAMPLE), SAMPLE)
    writer.finish(MANIFEST_BYTES)

    assert folder_digests(partial) == one_go


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of receipts in the order in which they are read."""
    names: list[str] = []
    real = LocalObjects.get

    def get(self: LocalObjects, name: str, max_bytes: int = SMALL_OBJECT_BYTES) -> bytes:
        if "/receipts/" in name:
            names.append(name.rpartition("/")[2])
        return real(self, name, max_bytes)

    monkeypatch.setattr(LocalObjects, "get", get)
    return names


def test_a_resumed_run_reads_each_receipt_once(
    partial: Path, tmp_path: Path, read: list[str]
) -> None:
    (partial / "receipts/00001.json").unlink()
    writer = new_writer(open_store(tmp_path), SAMPLE)
    assert writer.pending_shards() == [1]
    writer.needed_bytes()
    write_pending(writer, SAMPLE)
    read.clear()
    writer = new_writer(open_store(tmp_path), SAMPLE)

    assert writer.pending_shards() == []
    assert writer.needed_bytes() == 0
    writer.finish(MANIFEST_BYTES)

    assert sorted(read) == ["00000.json", "00001.json", "00002.json"]
    assert verify_cache(open_store(tmp_path), writer.folder).is_sound


def test_a_receipt_that_another_writer_replaced_is_read_again(
    partial: Path, tmp_path: Path, read: list[str]
) -> None:
    flip(partial / "tokens.zarr" / SHARD["tokens"])
    writer = new_writer(open_store(tmp_path), SAMPLE)
    assert writer.pending_shards() == [1]
    other = new_writer(open_store(tmp_path), SAMPLE)
    write_pending(other, SAMPLE)
    ours = (partial / "receipts/00002.json").read_bytes()
    (partial / "receipts/00002.json").unlink()
    (partial / "receipts/00002.json").write_bytes(ours)
    read.clear()

    writer.finish(MANIFEST_BYTES)

    assert read == ["00002.json"]  # the other one of these was left as it was
    assert verify_cache(open_store(tmp_path), writer.folder).is_sound


def test_what_was_read_stays_here_when_a_writer_goes_to_a_worker(
    partial: Path, tmp_path: Path
) -> None:
    writer = new_writer(open_store(tmp_path), SAMPLE)
    sent = len(pickle.dumps(writer))
    writer.pending_shards()

    assert len(pickle.dumps(writer)) <= sent + 100
    assert pickle.loads(pickle.dumps(writer)).pending_shards() == []


def test_a_late_writer_of_other_bytes_describes_what_is_stored(tmp_path: Path) -> None:
    # It published its tokens, slept, and wakes up when they were replaced.
    ours, late = make_sample(seed=1), make_sample(seed=2)
    objects = open_store(tmp_path)
    asleep = new_writer(objects, late)
    write_pending(asleep, late)
    folder = tmp_path / asleep.folder
    receipts = {path: path.read_bytes() for path in (folder / "receipts").iterdir()}
    for path in receipts:
        path.unlink()
    write_pending(new_writer(objects, ours), ours)
    for path in receipts:
        path.unlink()
        path.write_bytes(receipts[path])

    write_cache(objects, ours)

    assert verify_cache(objects, asleep.folder).is_sound


def reseal(root: Path, folder: Path, array: str, shard: bytes, n_rows: int = 64) -> None:
    """Make shard 1 of an array these bytes, and every digest and checksum true of them."""
    (folder / "tokens.zarr" / SHARD[array]).write_bytes(shard)
    index = np.frombuffer(shard[-INDEX_BYTES:-4], "<u8").reshape(-1, 2)[:n_rows]
    crcs = tuple(crc32c(shard[int(at) : int(at + length)]) for at, length in index)
    record = read_record(open_store(root), str(folder.relative_to(root)))
    stored = StoredObject(len(shard), new_digest(shard).hexdigest(), crcs)
    objects = {**record.receipts[1].objects, array: stored}
    edited: CacheRecord = replace(
        record, receipts=(record.receipts[0], Receipt(1, objects), record.receipts[2])
    )
    (folder / "cache.json").write_bytes(record_to_bytes(edited))


@pytest.mark.parametrize("array", ["tokens", "cls"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65504, -65504])
def test_values_that_no_writer_may_store_are_found_whatever_the_digests_say(
    tmp_path: Path, array: str, value: float
) -> None:
    folder = tmp_path / write_cache(open_store(tmp_path), SAMPLE).folder
    data = bytearray((folder / "tokens.zarr" / SHARD[array]).read_bytes())
    item = 2 * 5 * (6 if array == "tokens" else 1)
    data[2 * item + 4 : 2 * item + 6] = np.float16(value).tobytes()
    reseal(tmp_path, folder, array, bytes(data))

    (problem,) = verify_cache(open_store(tmp_path), str(folder.relative_to(tmp_path))).problems

    assert problem.rows == (66,)
    assert problem.text == f"{array} with NaN, infinity or 65504, which float16 cut off"


def test_an_index_that_does_not_fit_is_found_whatever_the_digests_say(tmp_path: Path) -> None:
    folder = tmp_path / write_cache(open_store(tmp_path), SAMPLE).folder
    whole = (folder / "tokens.zarr" / SHARD["tokens"]).read_bytes()
    data = whole[:-INDEX_BYTES]
    unequal = [60] * 62 + [40, 80]
    overlong = encode_index([60] * 64)
    cases = {
        "does not match its checksum": data + whole[-INDEX_BYTES:-4] + b"1234",
        "an image of 40 bytes where 60 are": data + encode_index(unequal),
        "does not cover its 3840 bytes": data + encode_index([60] * 63 + [59]),
        "out of order": data + _swapped(overlong),
    }
    for message, shard in cases.items():
        reseal(tmp_path, folder, "tokens", shard)

        report = verify_cache(open_store(tmp_path), str(folder.relative_to(tmp_path)))

        assert message in report.problems[0].text


def _swapped(index: bytes) -> bytes:
    pairs = np.frombuffer(index[:-4], "<u8").reshape(-1, 2).copy()
    pairs[[0, 1]] = pairs[[1, 0]]
    return pairs.tobytes() + crc32c(pairs).to_bytes(4, "little")


def test_checksums_of_other_bytes_are_found_whatever_the_digests_say(tmp_path: Path) -> None:
    folder = tmp_path / write_cache(open_store(tmp_path), SAMPLE).folder
    shard = (folder / "tokens.zarr" / SHARD["tokens"]).read_bytes()
    reseal(tmp_path, folder, "tokens", shard)
    record = read_record(open_store(tmp_path), str(folder.relative_to(tmp_path)))
    tokens = record.receipts[1].objects["tokens"]
    wrong = replace(tokens, crc32c=(0, *tokens.crc32c[1:]))
    receipt = Receipt(1, {**record.receipts[1].objects, "tokens": wrong})
    edited = replace(record, receipts=(record.receipts[0], receipt, record.receipts[2]))
    (folder / "cache.json").write_bytes(record_to_bytes(edited))

    (problem,) = verify_cache(open_store(tmp_path), str(folder.relative_to(tmp_path))).problems

    assert (problem.rows, problem.text[:31]) == ((64,), "does not have the CRC-32C that ")


def test_a_mask_of_other_values_is_found_whatever_the_digests_say(tmp_path: Path) -> None:
    folder = tmp_path / write_cache(open_store(tmp_path), SAMPLE).folder
    frames = [Zstd(3).encode(np.full((7, 9), row == 5, np.uint8) * 2) for row in range(64)]
    shard = b"".join([*frames, encode_index([len(frame) for frame in frames])])
    reseal(tmp_path, folder, "masks", shard)

    (problem,) = verify_cache(open_store(tmp_path), str(folder.relative_to(tmp_path))).problems

    assert (problem.rows, problem.text) == ((69,), "a mask with 2, expected 0 and 1")
