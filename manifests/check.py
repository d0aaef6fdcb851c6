"""Read a Parquet file that claims to be a manifest, its frame checked first.

Nothing is taken on trust: the number of rows and the decompressed size are bounded before columns
are read, and text is read as dictionaries so that a few bytes cannot unfold into gigabytes. What
the rows say is checked by `manifests.check_rows`.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.paths import MAX_PATH_BYTES, path_problem
from manifests.schema import (
    FORMAT_VERSION,
    MAX_ROWS,
    SCHEMA,
    THUMBNAIL,
    VERSION_KEY,
    left_out_of,
    schema_for,
)
from spg_core.errors import CorruptStore, StoreError

MAX_THUMBNAIL_BYTES: Final = 1 << 20
MAX_BYTES: Final = 8 << 30
"""Most bytes that the columns of a manifest may take together."""

MAX_GROWTH: Final = 64
"""Most times that a manifest above `FREE_BYTES` may grow when it is read. A row has a digest, which
takes 32 bytes of the file at least, so this is 2 kB a row; and a JPEG does not shrink at all."""
FREE_BYTES: Final = 64 << 20

MAX_COLUMN_BYTES: Final = 8 << 30
"""Most bytes of one column once its dictionary is unfolded."""

PARQUET_ERRORS: Final = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError)


def read_table(data: bytes, source: str, n_images: int | None = None) -> pa.Table:
    """Read Parquet bytes as a table of exactly the manifest's columns, types and `n_images` rows.

    Raises:
        CorruptStore: Not Parquet, torn, or not a manifest; names `source`.
        StoreError: The format version is newer than this program.
    """
    try:
        frame = pq.ParquetFile(pa.BufferReader(data))
        schema = _check_frame(frame, source, len(data), n_images)
        text = [field.name for field in schema if field.type in (pa.string(), pa.binary())]
        folded = pq.ParquetFile(
            pa.BufferReader(data), read_dictionary=text, page_checksum_verification=True
        ).read(use_threads=False)
        folded.validate(full=True)
        _check_unfolded(folded, len(data), source)
        columns = [_unfold(folded[field.name], field, source) for field in schema]
        table = pa.table(columns, schema=schema)
        table.validate(full=True)
    except PARQUET_ERRORS as error:
        raise corrupt(source, f"cannot be read as Parquet ({_one_line(error)})") from error
    return table


def _check_frame(
    frame: pq.ParquetFile, source: str, file_bytes: int, n_images: int | None
) -> pa.Schema:
    """Check version, columns, types and claimed sizes; give the schema to read with."""
    metadata = frame.metadata
    version = (metadata.metadata or {}).get(VERSION_KEY, b"")
    if not version.isdigit() or len(version) > 9:
        raise corrupt(source, "it has no manifest version, so it is not a manifest of spg-pipe")
    if int(version) > FORMAT_VERSION:
        raise StoreError(
            f"{source}: manifest version {int(version)} is newer than {FORMAT_VERSION}, the newest "
            f"that this program reads; update spg-pipe"
        )
    if int(version) != FORMAT_VERSION:
        raise corrupt(source, f"manifest version {int(version)} never existed")
    found = frame.schema_arrow
    left_out = left_out_of(metadata.metadata or {})
    if any(path_problem(path) is not None for path in left_out):
        raise corrupt(source, "what it says of files left out is no list of paths")
    schema = schema_for(thumbnails=THUMBNAIL.name in found.names, left_out=left_out)
    if found.names != schema.names:
        missing = sorted(set(SCHEMA.names) - set(found.names)) or "none"
        unknown = sorted(set(found.names) - set(schema.names)) or "none"
        raise corrupt(
            source, f"columns differ from the format (missing {missing}, unknown {unknown})"
        )
    for field in schema:
        if found.field(field.name).type != field.type:
            kind = found.field(field.name).type
            raise corrupt(source, f"column {field.name} is {kind}, expected {field.type}")
    _check_sizes(metadata, source, file_bytes)
    if n_images is not None and metadata.num_rows != n_images:
        raise corrupt(source, f"the manifest has {metadata.num_rows} rows for {n_images} images")
    return schema


def _check_sizes(metadata: pq.FileMetaData, source: str, file_bytes: int) -> None:
    """Bound what the file claims to hold, before any of it is read."""
    size_bytes = sum(
        metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    most = _most_bytes(file_bytes)
    if not 1 <= metadata.num_rows <= MAX_ROWS or not 0 <= size_bytes <= most:
        raise corrupt(
            source,
            f"it claims {metadata.num_rows} rows and {size_bytes} bytes; expected 1 to "
            f"{MAX_ROWS} rows and at most {most} bytes",
        )


def _most_bytes(file_bytes: int) -> int:
    """Give how many bytes a file of this size may unfold to."""
    return min(MAX_BYTES, max(FREE_BYTES, MAX_GROWTH * file_bytes))


def _check_unfolded(folded: pa.Table, file_bytes: int, source: str) -> None:
    """Refuse dictionaries that would unfold to far more, each and together."""
    sizes = {
        name: sum(map(_unfolded_bytes, folded[name].chunks))
        for name in folded.column_names
        if pa.types.is_dictionary(folded[name].type)
    }
    for name, size_bytes in sizes.items():
        if size_bytes > MAX_COLUMN_BYTES:
            raise corrupt(source, f"column {name} unfolds to {size_bytes} bytes")
    total = sum(sizes.values())
    if total > _most_bytes(file_bytes):
        raise corrupt(source, f"its {file_bytes} bytes unfold to {total}")


def _unfolded_bytes(chunk: Any) -> int:
    lengths = np.asarray(pc.binary_length(chunk.dictionary).fill_null(0), dtype=np.int64)
    return int(lengths[np.asarray(chunk.indices.drop_null())].sum()) if lengths.size else 0


def _unfold(column: Any, field: "pa.Field[Any]", source: str) -> Any:
    """Turn a dictionary column into plain text once each of its values is known to be sane."""
    if column.null_count and not field.nullable:
        raise corrupt(source, f"column {field.name} has {column.null_count} empty values")
    if not pa.types.is_dictionary(column.type):
        return column.cast(field.type)
    most = MAX_THUMBNAIL_BYTES if field.name == THUMBNAIL.name else MAX_PATH_BYTES
    for chunk in column.chunks:
        longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
        if longest > most:
            raise corrupt(
                source,
                f"column {field.name} holds a value of {longest} bytes; at most {most} are allowed",
            )
    return column.cast(field.type)


def corrupt(source: str, found: str) -> CorruptStore:
    """Give the error of a manifest that is not what was written."""
    return CorruptStore(f"{source}: {found}; it is torn or was edited: fetch or make it again")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
