"""Records for other programs: pandas, CSV, Parquet."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from spg_core.errors import SpgError

if TYPE_CHECKING:
    from pandas import DataFrame

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def to_frame(records: Sequence[Mapping[str, object]]) -> "DataFrame":
    """Give a DataFrame with a row a record. Raises: SpgError where there is no pandas."""
    try:
        import pandas
    except ImportError:
        raise SpgError("to_pandas needs pandas; `pip install pandas`") from None
    return pandas.DataFrame([dict(record) for record in records])


def csv_text(columns: Sequence[str], records: Sequence[Mapping[str, object]]) -> str:
    """Write records as CSV that a spreadsheet does not run.

    A text that begins as a formula does (`= + - @`, narrow or wide, after blanks or not; tab and
    line end) gets an apostrophe before it: it may be the name of a folder that anybody made.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (columns, *([record.get(name) for name in columns] for record in records)):
        writer.writerow([_defused(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def _defused(cell: str) -> str:
    risky = cell.lstrip().startswith(_FORMULA) or cell.startswith(("\t", "\r", "\n"))
    return f"'{cell}" if risky else cell


def as_parquet(table: pa.Table) -> bytes:
    """Give a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())
