"""Check a Parquet file that claims to be a manifest: first its frame, then every row.

Nothing is taken on trust: the number of rows and the decompressed size are bounded before columns
are read, text is read as dictionaries so that a few bytes cannot unfold into gigabytes, and paths
cannot leave the dataset root.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests.paths import MAX_PATH_BYTES, PATH_RULES, path_problem
from manifests.schema import (
    FORMAT_VERSION,
    GOOD,
    MAX_PIXELS,
    MAX_ROWS,
    SCHEMA,
    SPLITS,
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

JPEG_START: Final[Any] = b"\xff\xd8\xff"  # Any: the stubs want text here

Rule = tuple[str, NDArray[np.bool_], str]
"""A column, where it holds `(n_rows,)`, and what was expected."""

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
        raise _corrupt(source, f"cannot be read as Parquet ({_one_line(error)})") from error
    return table


def _check_frame(
    frame: pq.ParquetFile, source: str, file_bytes: int, n_images: int | None
) -> pa.Schema:
    """Check version, columns, types and claimed sizes; give the schema to read with."""
    metadata = frame.metadata
    version = (metadata.metadata or {}).get(VERSION_KEY, b"")
    if not version.isdigit() or len(version) > 9:
        raise _corrupt(source, "it has no manifest version, so it is not a manifest of spg-pipe")
    if int(version) > FORMAT_VERSION:
        raise StoreError(
            f"{source}: manifest version {int(version)} is newer than {FORMAT_VERSION}, the newest "
            f"that this program reads; update spg-pipe"
        )
    if int(version) != FORMAT_VERSION:
        raise _corrupt(source, f"manifest version {int(version)} never existed")
    found = frame.schema_arrow
    left_out = left_out_of(metadata.metadata or {})
    if any(path_problem(path) is not None for path in left_out):
        raise _corrupt(source, "what it says of files left out is no list of paths")
    schema = schema_for(thumbnails=THUMBNAIL.name in found.names, left_out=left_out)
    if found.names != schema.names:
        missing = sorted(set(SCHEMA.names) - set(found.names)) or "none"
        unknown = sorted(set(found.names) - set(schema.names)) or "none"
        raise _corrupt(
            source, f"columns differ from the format (missing {missing}, unknown {unknown})"
        )
    for field in schema:
        if found.field(field.name).type != field.type:
            kind = found.field(field.name).type
            raise _corrupt(source, f"column {field.name} is {kind}, expected {field.type}")
    _check_sizes(metadata, source, file_bytes)
    if n_images is not None and metadata.num_rows != n_images:
        raise _corrupt(source, f"the manifest has {metadata.num_rows} rows for {n_images} images")
    return schema


def _check_sizes(metadata: Any, source: str, file_bytes: int) -> None:
    """Bound what the file claims to hold, before any of it is read."""
    size_bytes = sum(
        metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    most = _most_bytes(file_bytes)
    if not 1 <= metadata.num_rows <= MAX_ROWS or not 0 <= size_bytes <= most:
        raise _corrupt(
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
            raise _corrupt(source, f"column {name} unfolds to {size_bytes} bytes")
    total = sum(sizes.values())
    if total > _most_bytes(file_bytes):
        raise _corrupt(source, f"its {file_bytes} bytes unfold to {total}")


def _unfolded_bytes(chunk: Any) -> int:
    lengths = np.asarray(pc.binary_length(chunk.dictionary).fill_null(0), dtype=np.int64)
    return int(lengths[np.asarray(chunk.indices.drop_null())].sum()) if lengths.size else 0


def _unfold(column: Any, field: "pa.Field[Any]", source: str) -> Any:
    """Turn a dictionary column into plain text once each of its values is known to be sane."""
    if column.null_count and not field.nullable:
        raise _corrupt(source, f"column {field.name} has {column.null_count} empty values")
    if not pa.types.is_dictionary(column.type):
        return column.cast(field.type)
    most = MAX_THUMBNAIL_BYTES if field.name == THUMBNAIL.name else MAX_PATH_BYTES
    for chunk in column.chunks:
        longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
        if longest > most:
            raise _corrupt(
                source,
                f"column {field.name} holds a value of {longest} bytes; at most {most} are allowed",
            )
    return column.cast(field.type)


def check_rows(table: pa.Table, source: str) -> None:
    """Check every value of a table that already has the right columns and types.

    Raises:
        CorruptStore: A row says what no manifest can say; names `source`, row and value.
    """
    for name, holds, expected in [*_number_rules(table), *_text_rules(table)]:
        broken = np.flatnonzero(~holds)
        if broken.size:
            row = int(broken[0])
            value = ascii(table[name][row].as_py())[:80]
            raise _corrupt(
                source, f"row {row}: {name} is {value} ({expected}; {broken.size} such rows)"
            )
    if len(table["image_path"].unique()) != table.num_rows:
        raise _corrupt(source, "column image_path names the same file twice")


def _number_rules(table: pa.Table) -> list[Rule]:
    row, label, width, height, pixels = (
        np.asarray(table[name].to_numpy(), dtype=np.int64)
        for name in ("row", "label", "width", "height", "mask_pixels")
    )
    size = width * height
    has_mask = _truth(pc.is_valid(_values(table, "mask_path")))
    has_mask_id = _truth(pc.is_valid(_values(table, "mask_id")))
    is_good = _truth(pc.equal(_values(table, "defect"), pa.scalar(GOOD)))
    return [
        ("row", row == np.arange(table.num_rows), "rows count up from 0"),
        ("label", (label == 0) | (label == 1), "expected 0 or 1"),
        ("defect", is_good == (label == 0), f"{GOOD} goes with label 0, and only with it"),
        ("width", width >= 1, "expected 1 or more"),
        ("height", height >= 1, "expected 1 or more"),
        ("width", size <= MAX_PIXELS, f"width x height is above {MAX_PIXELS}"),
        ("mask_pixels", (pixels >= 0) & (pixels <= size), "expected 0 to width x height"),
        ("mask_pixels", has_mask | (pixels == 0), "expected 0 without a mask"),
        ("mask_pixels", (label == 1) | (pixels == 0), "expected 0 for a good image"),
        ("mask_id", has_mask_id == has_mask, "goes with mask_path"),
    ]


def _text_rules(table: pa.Table) -> list[Rule]:
    dataset = _values(table, "dataset")
    is_split = pc.is_in(_values(table, "split"), pa.array(SPLITS))
    rules: list[Rule] = [
        ("split", _truth(is_split), "expected train or test"),
        ("dataset", _truth(pc.equal(dataset, dataset[0])), "expected one name in all rows"),
    ]
    for name in ("image_id", "mask_id"):
        is_digest = _matches(table, name, r"\A[0-9a-f]{64}\z", absent=True)
        rules.append((name, is_digest, "expected 64 hex digits"))
    for name in ("dataset", "category", "defect", "image_path", "mask_path"):
        for pattern, reason in PATH_RULES:
            rules.append((name, ~_matches(table, name, pattern, absent=False), f"it {reason}"))
    for name in ("dataset", "category", "defect"):
        rules.append((name, ~_matches(table, name, "/", absent=False), "it holds a slash"))
    if THUMBNAIL.name in table.column_names:
        is_jpeg = pc.starts_with(_values(table, THUMBNAIL.name), JPEG_START)
        rules.append((THUMBNAIL.name, _truth(is_jpeg), "expected a JPEG"))
    return rules


def _matches(table: pa.Table, name: str, pattern: str, *, absent: bool) -> NDArray[np.bool_]:
    return _truth(pc.match_substring_regex(_values(table, name), pattern), absent=absent)


def _truth(answers: Any, *, absent: bool = True) -> NDArray[np.bool_]:
    """Turn a pyarrow column of bools into NumPy; `absent` stands in for nulls."""
    return np.asarray(answers.fill_null(absent).to_numpy(), dtype=np.bool_)


def _values(table: pa.Table, name: str) -> Any:
    """Give a column; untyped, as pyarrow's stubs know no chunked columns in `pc`."""
    return table[name]


def _corrupt(source: str, found: str) -> CorruptStore:
    return CorruptStore(f"{source}: {found}; it is torn or was edited: fetch or make it again")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
