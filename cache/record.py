"""What is stored about a cache: receipts of shards while it grows, `cache.json` once it is whole.

Both are read as foreign input: every field is checked before anything is believed or allocated.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Never

from cache.key import cache_key, canonical_json
from cache.layout import (
    FORMAT_VERSION,
    IMAGES_PER_SHARD,
    INDEX_BYTES,
    Geometry,
    array_dtype,
    shard_name,
)
from spg_core.errors import CorruptStore, StoreError

_HEX = set("0123456789abcdef")


@dataclass(frozen=True)
class StoredObject:
    """One shard of one array, as it lies in the store."""

    size_bytes: int
    blake3: str
    """BLAKE3 of the whole object, 64 hex digits."""
    crc32c: tuple[int, ...]
    """CRC-32C of each inner chunk as stored, one an image."""


@dataclass(frozen=True)
class Receipt:
    """All arrays' objects of one shard; a pure function of the stored bytes."""

    shard: int
    objects: Mapping[str, StoredObject]
    """By array name."""


@dataclass(frozen=True, kw_only=True)
class CacheRecord:
    """The content of `cache.json`."""

    key: str
    covers: Mapping[str, object]
    geometry: Geometry
    receipts: tuple[Receipt, ...]
    manifest_bytes: int
    manifest_sha256: str
    created: str
    """UTC, ISO 8601."""
    versions: Mapping[str, object] = field(default_factory=dict)
    timings: Mapping[str, object] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes of all shards and the manifest."""
        stored = (item.size_bytes for receipt in self.receipts for item in receipt.objects.values())
        return sum(stored) + self.manifest_bytes


def receipt_to_json(receipt: Receipt, geometry: Geometry) -> dict[str, object]:
    """Return the JSON object of a receipt."""
    rows = geometry.shard_rows(receipt.shard)
    objects = {
        array: {
            "name": shard_name(array, receipt.shard),
            "bytes": stored.size_bytes,
            "blake3": stored.blake3,
            "crc32c": "".join(f"{crc:08x}" for crc in stored.crc32c),
        }
        for array, stored in receipt.objects.items()
    }
    return {"shard": receipt.shard, "rows": [rows.start, rows.stop], "objects": objects}


def receipt_to_bytes(receipt: Receipt, geometry: Geometry) -> bytes:
    """Return a receipt as it is stored."""
    return canonical_json(receipt_to_json(receipt, geometry))


def parse_receipt(data: bytes, shard: int, geometry: Geometry, where: str) -> Receipt:
    """Read and check a stored receipt. Raises: CorruptStore naming `where`."""
    return _receipt_from(_load(data, where), shard, geometry, where)


def record_to_bytes(record: CacheRecord) -> bytes:
    """Return `cache.json`; its `digest` is the SHA-256 of the other fields' canonical JSON."""
    geometry = record.geometry
    body: dict[str, object] = {
        "format": FORMAT_VERSION,
        "key": record.key,
        "covers": dict(record.covers),
        "arrays": {array: _array_to_json(geometry, array) for array in geometry.arrays},
        "images_per_shard": IMAGES_PER_SHARD,
        "shards": [receipt_to_json(receipt, geometry) for receipt in record.receipts],
        "manifest": {"bytes": record.manifest_bytes, "sha256": record.manifest_sha256},
        "versions": dict(record.versions),
        "timings": dict(record.timings),
        "created": record.created,
    }
    body["digest"] = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps(body, indent=1).encode("ascii")


def parse_record(data: bytes, where: str, key: str) -> CacheRecord:
    """Read and check the `cache.json` of cache `key`. Raises: CorruptStore naming `where`."""
    body = _load(data, where)
    if body.get("format") != FORMAT_VERSION:
        _refuse(where, f"format {body.get('format')!r}, this version reads {FORMAT_VERSION}")
    digest = body.pop("digest", None)
    if digest != hashlib.sha256(canonical_json(body)).hexdigest():
        _refuse(where, "its digest does not match its content; it was edited or torn")
    covers = _object(body, "covers", where)
    if not body.get("key") == cache_key(covers) == key:
        _refuse(where, f"key {body.get('key')!r} is not that of its folder and of what it covers")
    geometry = _geometry_from(body, where)
    shards = body.get("shards")
    if not isinstance(shards, list) or len(shards) != geometry.n_shards:
        _refuse(where, f"{geometry.n_shards} shards expected")
    manifest = _object(body, "manifest", where)
    return CacheRecord(
        key=str(body["key"]),
        covers=covers,
        geometry=geometry,
        receipts=tuple(_receipt_from(s, i, geometry, where) for i, s in enumerate(shards)),
        manifest_bytes=_count(manifest.get("bytes"), where, "manifest bytes"),
        manifest_sha256=_hex(manifest.get("sha256"), 64, where, "manifest sha256"),
        created=str(body.get("created")),
        versions=_object(body, "versions", where),
        timings=_object(body, "timings", where),
    )


def _array_to_json(geometry: Geometry, array: str) -> dict[str, object]:
    item = geometry.item_shape(array)
    return {"shape": [geometry.n_images, *item], "dtype": array_dtype(array).name}


def _geometry_from(body: Mapping[str, object], where: str) -> Geometry:
    arrays = _object(body, "arrays", where)
    tokens = _shape(arrays, "tokens", 3, where)
    masks = _shape(arrays, "masks", 3, where) if "masks" in arrays else None
    try:
        geometry = Geometry(
            n_images=tokens[0],
            tokens_per_image=tokens[1],
            d_model=tokens[2],
            has_cls="cls" in arrays,
            mask_size=(masks[1], masks[2]) if masks else None,
        )
    except StoreError as error:
        raise CorruptStore(f"{where}: {error}") from error
    expected = {array: _array_to_json(geometry, array) for array in geometry.arrays}
    if arrays != expected or body.get("images_per_shard") != IMAGES_PER_SHARD:
        _refuse(where, "its arrays do not have the shapes and dtypes of a token cache")
    return geometry


def _shape(arrays: Mapping[str, object], name: str, n_axes: int, where: str) -> list[int]:
    array = _object(arrays, name, where)
    shape = array.get("shape")
    if not isinstance(shape, list) or len(shape) != n_axes:
        _refuse(where, f"array {name} needs {n_axes} axes, found {shape!r}")
    for size in shape:
        if not 1 <= _count(size, where, f"size of {name}") <= 2**31:
            _refuse(where, f"array {name} has shape {shape!r}")
    return shape


def _receipt_from(body: object, shard: int, geometry: Geometry, where: str) -> Receipt:
    rows = geometry.shard_rows(shard)
    if not isinstance(body, dict) or body.get("shard") != shard:
        _refuse(where, f"no receipt of shard {shard}")
    if body.get("rows") != [rows.start, rows.stop]:
        _refuse(where, f"shard {shard} has rows {body.get('rows')!r}, not {rows}")
    objects = _object(body, "objects", where)
    if set(objects) != set(geometry.arrays):
        _refuse(where, f"shard {shard} has {sorted(objects)}, expected {sorted(geometry.arrays)}")
    return Receipt(shard, {a: _stored_from(objects, a, shard, geometry, where) for a in objects})


def _stored_from(
    objects: Mapping[str, object], array: str, shard: int, geometry: Geometry, where: str
) -> StoredObject:
    body = _object(objects, array, where)
    n_rows = len(geometry.shard_rows(shard))
    size_bytes = _count(body.get("bytes"), where, "bytes")
    exact = geometry.raw_shard_bytes(array, shard)
    # zstd never grows data by more than 1/256 and a few bytes a frame.
    largest = exact + exact // 128 + 512 * n_rows if array == "masks" else exact
    smallest = INDEX_BYTES if array == "masks" else exact
    if body.get("name") != shard_name(array, shard) or not smallest <= size_bytes <= largest:
        _refuse(where, f"shard {shard} of {array} has a wrong name or size ({size_bytes} bytes)")
    crcs = _hex(body.get("crc32c"), 8 * n_rows, where, "crc32c")
    return StoredObject(
        size_bytes,
        _hex(body.get("blake3"), 64, where, "blake3"),
        tuple(int(crcs[i : i + 8], 16) for i in range(0, len(crcs), 8)),
    )


def _load(data: bytes, where: str) -> dict[str, object]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptStore(f"{where} is not whole JSON ({error}); it was edited or torn") from error
    if not isinstance(body, dict):
        _refuse(where, f"a JSON object was expected, found a {type(body).__name__}")
    return body


def _object(body: Mapping[str, object], name: str, where: str) -> dict[str, object]:
    value = body.get(name)
    if not isinstance(value, dict):
        _refuse(where, f"{name} should be a JSON object, found {value!r:.80}")
    return value


def _count(value: object, where: str, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        _refuse(where, f"{what} should be a whole number, found {value!r:.80}")
    return value


def _hex(value: object, digits: int, where: str, what: str) -> str:
    if not isinstance(value, str) or len(value) != digits or not set(value) <= _HEX:
        _refuse(where, f"{what} should be {digits} hex digits, found {value!r:.80}")
    return value


def _refuse(where: str, problem: str) -> Never:
    raise CorruptStore(f"{where}: {problem}")
