"""The receipts of a partial cache: who says that a shard is written, and whether it is true.

A receipt is believed once the bytes it describes were read and have its digests; a shard that has
no receipt, or one of other bytes, is doubted until its writer shows itself.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cache.layout import Geometry, receipt_name, shard_name
from cache.objects import ObjectInfo, Objects, Part, as_view, total_bytes
from cache.record import Receipt, StoredObject, parse_receipt, receipt_to_bytes
from cache.shard import check_values, crc32c, describe_shard, is_storable, new_digest
from spg_core.ahead import in_order
from spg_core.errors import CorruptStore, NotInStore, StoreError

_ATTEMPTS = 3
_LISTED = 8
_READ = 4
_log = logging.getLogger(__name__)


class Receipts:
    """What is known of the shards of one cache that is being written."""

    def __init__(self, objects: Objects, folder: str, geometry: Geometry) -> None:
        self.objects, self.folder, self.geometry = objects, folder, geometry
        self.has_looked = False
        self._doubted: dict[int, bytes | None] = {}
        """Shards that lay there without proof, and the receipt each had, at the last look."""
        self._read: dict[int, tuple[str, bytes]] = {}
        """Receipts that were read, and the version that the listing before gave."""

    def __getstate__(self) -> dict[str, object]:
        # to a worker goes what it needs to write, not a kilobyte a shard
        return {**vars(self), "_read": {}}

    @property
    def distrusted(self) -> frozenset[int]:
        """The shards that had a receipt that does not fit what is stored, at the last look."""
        return frozenset(shard for shard, data in self._doubted.items() if data is not None)

    def stated(self) -> set[int]:
        """Return the shards that look written: by their receipts and sizes, and not doubted."""
        return set(self._stated(self._listed())) - set(self._doubted)

    def settled(self) -> dict[int, Receipt]:
        """Return the receipts that can be believed now, at the end of the writing.

        Read are only shards that were doubted and have the same receipt still; and all of them
        where nobody looked before. Any other receipt is of a writer that lived meanwhile. Receipts
        that were read and lie there unchanged, as the listing says, are not read again.
        """
        if not self.has_looked:
            return self.proved()
        return {
            shard: receipt
            for shard, (receipt, data) in self._stated(self._listed()).items()
            if self._doubted.get(shard) != data or self._wrong_object(receipt) is None
        }

    def proved(self, progress: Callable[[int, int], None] | None = None) -> dict[int, Receipt]:
        """Read every shard that has a receipt; return the receipts of those with its digests.

        Args:
            progress: called with 1 and the number of shards to read, once each is checked.
        """
        self._doubted, self.has_looked = {}, True
        listed = self._listed()
        stated = self._stated(listed)

        found = {}
        with ThreadPoolExecutor(_READ) as pool:
            proofs = in_order(
                pool, lambda shard: self._proof(shard, *stated[shard]), stated, 2 * _READ
            )
            for shard, receipt in zip(stated, proofs, strict=True):
                found[shard] = receipt
                if progress is not None:
                    progress(1, len(stated))
        for shard in range(self.geometry.n_shards):
            names = (f"{self.folder}/{receipt_name(shard)}", *self._names(shard))
            if shard not in stated and any(name in listed for name in names):
                self._doubted[shard] = self._get(shard)
        return {shard: receipt for shard, receipt in found.items() if receipt is not None}

    def is_doubted(self, shard: int) -> bool:
        """Tell whether a shard lay there at the last look without proof, and nobody spoke since."""
        return shard in self._doubted and self._get(shard) == self._doubted[shard]

    def describe(self, array: str, shard: int) -> StoredObject:
        """Return what is stored of a shard. Raises: CorruptStore where no shard of ours is."""
        name = f"{self.folder}/{shard_name(array, shard)}"
        raw = self.geometry.raw_shard_bytes(array, shard)
        data = self.objects.get(name, max_bytes=2 * raw)
        try:
            if array != "masks" and len(data) != raw:
                raise StoreError(f"it has {len(data)} bytes")
            crcs = describe_shard(data, len(self.geometry.shard_rows(shard)))
            for _, problem in check_values(array, data, len(crcs), self.geometry.item_shape(array)):
                raise StoreError(problem)
        except StoreError as error:
            raise CorruptStore(f"{self.objects.where}/{name}: {error}") from error
        return StoredObject(len(data), new_digest(data).hexdigest(), tuple(crcs))

    def publish(self, receipt: Receipt) -> None:
        """Store a receipt; where there is another one, what is stored decides."""
        name = f"{self.folder}/{receipt_name(receipt.shard)}"
        for _ in range(_ATTEMPTS):
            data = receipt_to_bytes(receipt, self.geometry)
            if self.objects.put_new(name, [data]):
                return
            there = self._get(receipt.shard)
            if there not in (data, None):
                arrays = self.geometry.arrays
                stored = {array: self.describe(array, receipt.shard) for array in arrays}
                receipt = Receipt(receipt.shard, stored)
                data = receipt_to_bytes(receipt, self.geometry)
            if there == data:
                return
            if there is not None:
                self.objects.delete(name)
        raise StoreError(f"{self.objects.where}/{name} keeps changing under this writer")

    def _proof(self, shard: int, receipt: Receipt, data: bytes) -> Receipt | None:
        """Compare a shard with its receipt; None, and doubted, where they differ."""
        for _ in range(_ATTEMPTS):
            wrong = self._wrong_object(receipt)
            if wrong is None:
                return receipt
            now = self._get(shard)
            if now == data:
                break
            # Its writer has just described other bytes: look at those.
            parsed = None if now is None else self._parse(shard, now)
            if parsed is None or now is None:
                return None
            receipt, data = parsed, now
        _log.warning(
            "%s/%s is not what its receipt says; it is made again", self.objects.where, wrong
        )
        self._doubted[shard] = data
        return None

    def _wrong_object(self, receipt: Receipt) -> str | None:
        for array, stored in receipt.objects.items():
            name = f"{self.folder}/{shard_name(array, receipt.shard)}"
            try:
                if self.describe(array, receipt.shard) != stored:
                    return name
            except (CorruptStore, NotInStore):
                return name
        return None

    def _stated(self, listed: Mapping[str, ObjectInfo]) -> dict[int, tuple[Receipt, bytes]]:
        versions = {
            shard: listed[name].version
            for shard in range(self.geometry.n_shards)
            if (name := f"{self.folder}/{receipt_name(shard)}") in listed
        }
        found = {}
        for shard, data in self._received(versions).items():
            receipt = self._parse(shard, data)
            if receipt is not None and self._is_stored(receipt, listed):
                found[shard] = (receipt, data)
        return found

    def _received(self, versions: Mapping[int, str | None]) -> dict[int, bytes]:
        """Give receipts by their shards; read are those that were not, or are others by now."""

        def is_known(shard: int) -> bool:
            return shard in self._read and self._read[shard][0] == versions[shard]

        new = [shard for shard in versions if not is_known(shard)]
        with ThreadPoolExecutor(_LISTED) as pool:
            read = dict(zip(new, in_order(pool, self._get, new, 2 * _LISTED), strict=True))
        for shard, data in read.items():
            version = versions[shard]
            if data is not None and version is not None:
                self._read[shard] = version, data
        every = {
            shard: read[shard] if shard in read else self._read[shard][1] for shard in versions
        }
        return {shard: data for shard, data in every.items() if data is not None}

    def _listed(self) -> dict[str, ObjectInfo]:
        return {info.name: info for info in self.objects.walk(self.folder)}

    def _names(self, shard: int) -> list[str]:
        return [f"{self.folder}/{shard_name(array, shard)}" for array in self.geometry.arrays]

    def _get(self, shard: int) -> bytes | None:
        try:
            return self.objects.get(f"{self.folder}/{receipt_name(shard)}")
        except NotInStore:
            return None

    def _parse(self, shard: int, data: bytes) -> Receipt | None:
        try:
            return parse_receipt(data, shard, self.geometry, receipt_name(shard))
        except CorruptStore:
            return None

    def _is_stored(self, receipt: Receipt, listed: Mapping[str, ObjectInfo]) -> bool:
        return all(
            (name := f"{self.folder}/{shard_name(array, receipt.shard)}") in listed
            and listed[name].size_bytes == stored.size_bytes
            for array, stored in receipt.objects.items()
        )


def drop_receipts(objects: Objects, folder: str) -> None:
    """Delete the receipts of a complete cache, which states them in its record."""
    for info in list(objects.walk(f"{folder}/receipts")):
        objects.delete(info.name)


def describe_parts(array: str, rows: range, chunks: Sequence[Part], index: bytes) -> StoredObject:
    """Check and digest a shard on its way; each chunk at once, while the processor holds it."""
    digest, crcs = new_digest(), []
    for row, chunk in zip(rows, chunks, strict=True):
        if isinstance(chunk, np.ndarray) and not is_storable(chunk):
            raise StoreError(
                f"{array} of image row {row} hold NaN or values beyond float16's 65504; "
                "this shard was not stored"
            )
        crcs.append(crc32c(chunk))
        digest.update(as_view(chunk))
    digest.update(index)
    return StoredObject(total_bytes([*chunks, index]), digest.hexdigest(), tuple(crcs))
