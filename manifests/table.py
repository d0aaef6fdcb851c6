"""The manifest in memory, and as Parquet bytes.

`manifest_from_bytes` is the border: a shared manifest is foreign input, checked in full before
anything trusts it. After that nobody checks again.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests.check import read_table
from manifests.check_rows import check_rows
from manifests.schema import left_out_of
from spg_core.errors import DatasetError


@dataclass(frozen=True)
class Manifest:
    """A checked manifest; row i describes `tokens[i]`. Made by `build_manifest` or read back."""

    table: pa.Table
    """Columns as `manifests.schema` says."""

    @property
    def n_images(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.table["dataset"][0].as_py())

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order in which the rows first name them."""
        return tuple(map(str, self.table["category"].unique().to_pylist()))

    @property
    def labels(self) -> NDArray[np.int8]:
        """Labels `(n_images,)`: 0 normal, 1 defective."""
        return np.asarray(self.table["label"].to_numpy(), dtype=np.int8)

    @property
    def has_thumbnails(self) -> bool:
        """Whether the thumbnail column is there."""
        return "thumbnail" in self.table.column_names

    @property
    def left_out(self) -> tuple[str, ...]:
        """Paths of the broken files that were left out when it was made."""
        return left_out_of(self.table.schema.metadata or {})

    def column(self, name: str) -> list[object]:
        """Give one column as Python values, in row order."""
        return list(self.table[name].to_pylist())

    def rows_of(self, category: str) -> NDArray[np.int64]:
        """Give the rows of one category, ascending, `(n,)`.

        Raises:
            DatasetError: No row has this category.
        """
        rows = np.flatnonzero(self.table["category"].to_numpy() == category)
        if rows.size == 0:
            known = ", ".join(self.categories)
            raise DatasetError(f"no category {category!r} in {self.dataset}; there are {known}")
        return rows.astype(np.int64)

    def thumbnails(self, rows: Sequence[int] | NDArray[np.int64]) -> list[bytes | None]:
        """Give the JPEGs of some rows; None where there is none."""
        if not self.has_thumbnails:
            return [None] * len(rows)
        found: list[bytes | None] = self.select(rows)["thumbnail"].to_pylist()
        return found

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> pa.Table:
        """Give a table of some rows; its `row` column still says where they are in the cache."""
        return self.table.take(np.asarray(rows, dtype=np.int64))


def manifest_to_bytes(manifest: Manifest) -> bytes:
    """Write a manifest as Parquet; the same manifest gives the same bytes."""
    buffer = io.BytesIO()
    # Page checksums: a flipped bit inside a page is found by any reader that looks.
    pq.write_table(manifest.table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def manifest_from_bytes(data: bytes, source: str, n_images: int | None = None) -> Manifest:
    """Read and check a manifest that anybody may have written.

    Args:
        data: The whole Parquet file.
        source: What to call it in errors: its path or URL.
        n_images: How many rows it must have; compared before anything is read.

    Raises:
        CorruptStore: Torn, edited or not a manifest; names `source`.
        StoreError: Written by a newer version of this program.
    """
    table = read_table(data, source, n_images)
    check_rows(table, source)
    return Manifest(table)
