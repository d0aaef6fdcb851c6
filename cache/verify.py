"""Check every stored byte of a complete cache: against its digests, and for what it means."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cache.find import read_record
from cache.layout import MANIFEST, shard_name
from cache.objects import Objects
from cache.record import CacheRecord, StoredObject
from cache.shard import check_values, describe_shard, new_digest
from cache.zarr_group import zarr_metadata
from spg_core.ahead import in_order
from spg_core.errors import CorruptStore, NotInStore, StoreError

_THREADS = 4


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written."""

    name: str
    """Of the object, relative to the store."""
    rows: tuple[int, ...]
    """Image rows it spoils; empty when it is not about images."""
    text: str


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found."""

    folder: str
    checked_objects: int
    checked_bytes: int
    problems: tuple[Problem, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_cache(
    objects: Objects, folder: str, progress: Callable[[int], None] | None = None
) -> VerifyReport:
    """Read everything of a complete cache and list all that is wrong.

    Args:
        objects: the store.
        folder: of the cache, `CacheInfo.folder`.
        progress: called with the bytes of each object once it is checked.

    Raises:
        IncompleteCache: there is no `cache.json`.
        CorruptStore: `cache.json` itself is wrong, so nothing else can be judged.
    """
    record = read_record(objects, folder)
    tasks = [
        (array, receipt.shard, stored)
        for receipt in record.receipts
        for array, stored in receipt.objects.items()
    ]

    def check(task: tuple[str, int, StoredObject]) -> list[Problem]:
        problems = _check_shard(objects, folder, record, *task)
        if progress is not None:
            progress(task[2].size_bytes)
        return problems

    with ThreadPoolExecutor(_THREADS) as pool:
        checked = in_order(pool, check, tasks, 2 * _THREADS)
        found = [problem for problems in checked for problem in problems]
    found += _check_manifest(objects, folder, record)
    metadata = zarr_metadata(record.geometry)
    for name, expected in metadata.items():
        found += _check_metadata(objects, f"{folder}/{name}", expected)
    return VerifyReport(folder, len(tasks) + len(metadata) + 2, record.size_bytes, tuple(found))


def check_bytes(data: bytes, array: str, shard: int, record: CacheRecord, where: str) -> None:
    """Refuse a shard's bytes that are not those of the record. Raises: CorruptStore."""
    stored = record.receipts[shard].objects[array]
    if new_digest(data).hexdigest() != stored.blake3:
        rows = _bad_rows(data, array, shard, record)
        raise CorruptStore(f"{where} is not what was written; {_spoilt(rows)}")


def _check_shard(
    objects: Objects,
    folder: str,
    record: CacheRecord,
    array: str,
    shard: int,
    stored: StoredObject,
) -> list[Problem]:
    name = f"{folder}/{shard_name(array, shard)}"
    everything = tuple(record.geometry.shard_rows(shard))
    try:
        data = objects.get(name, max_bytes=max(stored.size_bytes, 1))
    except NotInStore:
        return [Problem(name, everything, "is missing")]
    except StoreError as error:
        return [Problem(name, everything, str(error))]
    if len(data) != stored.size_bytes:
        text = f"has {len(data)} bytes, {stored.size_bytes} were written"
        return [Problem(name, everything, text)]
    if new_digest(data).hexdigest() != stored.blake3:
        rows = _bad_rows(data, array, shard, record)
        return [Problem(name, rows, f"does not match its digest; {_spoilt(rows)}")]
    return _check_content(data, array, shard, record, name)


def _check_content(
    data: bytes, array: str, shard: int, record: CacheRecord, name: str
) -> list[Problem]:
    """Check index, checksums and values: a digest only says that it is what somebody wrote."""
    rows = record.geometry.shard_rows(shard)
    try:
        crcs = describe_shard(data, len(rows))
    except StoreError as error:
        return [Problem(name, tuple(rows), str(error))]
    expected = record.receipts[shard].objects[array].crc32c
    problems = [
        Problem(name, (row,), "does not have the CRC-32C that cache.json states")
        for row, stated, found in zip(rows, expected, crcs, strict=True)
        if stated != found
    ]
    item = record.geometry.item_shape(array)
    values = check_values(array, data, len(rows), item)
    return problems + [Problem(name, (rows[row],), text) for row, text in values]


def _bad_rows(data: bytes, array: str, shard: int, record: CacheRecord) -> tuple[int, ...]:
    rows = record.geometry.shard_rows(shard)
    expected = record.receipts[shard].objects[array].crc32c
    try:
        found = describe_shard(data, len(rows))
    except StoreError:
        return tuple(rows)
    return tuple(row for row, a, b in zip(rows, expected, found, strict=True) if a != b)


def _spoilt(rows: tuple[int, ...]) -> str:
    if not rows:
        return "its images are whole, its index is not"
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    return f"{len(rows)} image(s) spoilt: {shown}"


def _check_manifest(objects: Objects, folder: str, record: CacheRecord) -> list[Problem]:
    name = f"{folder}/{MANIFEST}"
    try:
        data = objects.get(name, max_bytes=max(record.manifest_bytes, 1))
    except NotInStore:
        return [Problem(name, (), "is missing")]
    except StoreError as error:
        return [Problem(name, (), str(error))]
    if hashlib.sha256(data).hexdigest() != record.manifest_sha256:
        return [Problem(name, (), "does not match its digest")]
    return []


def _check_metadata(objects: Objects, name: str, expected: bytes) -> list[Problem]:
    try:
        found = json.loads(objects.get(name))
    except NotInStore:
        return [Problem(name, (), "is missing")]
    except (StoreError, ValueError, RecursionError) as error:
        return [Problem(name, (), f"cannot be read: {error}")]
    if found != json.loads(expected):
        return [Problem(name, (), "does not describe the arrays of this cache")]
    return []
