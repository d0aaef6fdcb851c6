"""Check every row of a table with a manifest's columns; its paths cannot leave the root."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.check import corrupt
from manifests.paths import PATH_RULES
from manifests.schema import GOOD, MAX_PIXELS, SPLITS, THUMBNAIL

JPEG_START: Final[Any] = b"\xff\xd8\xff"  # Any: the stubs want text here

Rule = tuple[str, NDArray[np.bool_], str]
"""A column, where it holds `(n_rows,)`, and what was expected."""


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
            raise corrupt(
                source, f"row {row}: {name} is {value} ({expected}; {broken.size} such rows)"
            )
    if len(table["image_path"].unique()) != table.num_rows:
        raise corrupt(source, "column image_path names the same file twice")


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
