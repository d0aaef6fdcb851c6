"""What all datasets with a list share: entries, and reading a foreign list.

A list is foreign input: every path in it is brought to its shortest form and checked before
anything is opened, and no key or column may stand twice.
"""

import codecs
import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from manifests.files import STANDS_FOR, read_bytes
from manifests.listing import Listing
from manifests.named_paths import listed_file_is_fine, normal_path
from spg_core.errors import DatasetError

NO_TEXT: Final = {
    b"pk": "an Excel workbook or another zip archive; save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"\x1f\x8b": "packed by gzip; unpack it",
    b"par1": "a Parquet file; save it as CSV",
}
"""How files begin, in lower case, that are taken for lists, and what they are."""


@dataclass(frozen=True)
class Entry:
    """One image as a layout lists it, before it is opened."""

    category: str
    split: str
    defect: str
    image_path: str
    mask_path: str | None
    """A file, or a folder of several masks of this image, which count together."""
    label: int | None
    """0 or 1; None where only the mask will tell, which then settles `defect` too."""

    def order(self) -> tuple[str, str, str, str]:
        """Give the sort key of manifest rows; code points compare as UTF-8 bytes do."""
        return (self.category, self.split, self.defect, self.image_path)


def find_list(listing: Listing, default: str) -> Path | None:
    """Find the list that was asked for, or the layout's own below the root.

    What a user names is a name below the root, or else any path.
    """
    asked = listing.reading.list_file
    if asked is None:
        fine = listed_file_is_fine(
            listing.root,
            default,
            "this layout",
            listing.problems,
            {},
            follow_links=listing.reading.follow_links,
        )
        return listing.root / default if fine else None
    below = listing.root / asked
    found = below if os.path.exists(below) else Path(asked)  # noqa: PTH110 (any name is fine)
    if not os.path.exists(found):  # noqa: PTH110
        listing.add(
            "missing file", asked, "named by --list-file, found neither below the root nor here"
        )
        return None
    return found


def read_list(listing: Listing, path: Path, name: str) -> str | None:
    """Read a list as text: UTF-8, or UTF-16 where a byte order mark says so."""
    try:
        data = read_bytes(path, may_be_empty=True)
        begins = {**STANDS_FOR, **NO_TEXT}
        what = next((begins[one] for one in begins if data[:99].lower().startswith(one)), None)
        if what is not None:
            listing.add("unusable list", name, f"it is {what}")
            return None
        # Spreadsheet programs put a byte order mark in front, some shells write UTF-16.
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if not utf16 and b"\0" in data[:2]:
            listing.add("unusable list", name, "UTF-16 without a mark of it; save it as UTF-8")
            return None
        return data.decode("utf-16" if utf16 else "utf-8-sig").removeprefix("\ufeff")
    except (DatasetError, UnicodeDecodeError) as error:
        reason = str(error).rpartition(": ")[2]
        if isinstance(error, UnicodeDecodeError):
            reason = f"{error}; save it as UTF-8"
        listing.add("unusable list", name, f"cannot be read: {reason}")
        return None


def parse_json(text: str) -> object:
    """Parse JSON in which no key stands twice.

    Raises:
        ValueError: No JSON, a key that stands twice, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_one_of_each)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _one_of_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def csv_rows(text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Parse a CSV: its columns, and its rows as (line, cells by column), all without spaces around.

    Cells are separated by commas, or by what spreadsheets use where commas are decimal points,
    which Excel may say in a line before the header. Lines and columns without a word are left out.

    Raises:
        ValueError: No CSV, a column that stands twice, or a row with more cells than columns.
    """
    first = text.partition("\n")[0].strip()
    said = re.fullmatch(r"sep=([,;\t|])", first, re.IGNORECASE)
    cut = said[1] if said else max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=cut)
    try:
        if said:
            next(lines)
        header = [column.strip() for column in next(lines, [])]
        found = [(lines.line_num, [cell.strip() for cell in line]) for line in lines]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    rows = [(number, cells) for number, cells in found if any(cells)]
    while header and not header[-1] and not any(any(cells[len(header) - 1 :]) for _, cells in rows):
        header.pop()
    names = [column.casefold() for column in header]
    if len({*names}) != len(names):
        twice = next(column for column in header if names.count(column.casefold()) > 1)
        raise ValueError(f"the column {twice!r} stands twice")
    for number, cells in rows:
        if any(cells[len(header) :]):
            raise ValueError(f"line {number} has more cells than columns; quote what holds a comma")
    empty = dict.fromkeys(header, "")
    return header, [
        (number, {**empty, **dict(zip(header, cells, strict=False))}) for number, cells in rows
    ]


def checked(listing: Listing, entries: Iterable[tuple[Entry, str]]) -> list[Entry]:
    """Keep the entries whose files exist inside the root, each image once.

    Args:
        listing: The dataset; gets a problem for each path that cannot be used.
        entries: Entries with paths as the list has them, and where it has them.
    """
    kept: dict[str, Entry] = {}
    real_folders: dict[str, str] = {}

    def is_fine(path: str, place: str) -> bool:
        return listed_file_is_fine(
            listing.root,
            path,
            place,
            listing.problems,
            real_folders,
            follow_links=listing.reading.follow_links,
        )

    for listed, place in entries:
        entry = _with_normal_paths(listing.root, listed)
        # Every path is looked at, not only up to the first bad one: all problems at once.
        paths = [entry.image_path, *([entry.mask_path] if entry.mask_path else [])]
        fine = [is_fine(path, place) for path in paths]
        if not all(fine):
            continue
        if entry.image_path in kept:
            listing.add("listed twice", entry.image_path, f"again in {place}")
            continue
        kept[entry.image_path] = entry
    return list(kept.values())


def _with_normal_paths(root: Path, entry: Entry) -> Entry:
    mask = _below(root, entry.mask_path) if entry.mask_path else None
    # Generators of lists join a folder and an empty name where there is no mask.
    if mask is not None and os.path.isdir(root / mask):  # noqa: PTH112 (any name is fine)
        mask = None
    return replace(entry, image_path=_below(root, entry.image_path), mask_path=mask)


def _below(root: Path, listed: str) -> str:
    """Give a listed path relative to the root; lists beside several sets begin with its folder."""
    path = normal_path(listed, root)
    name, _, rest = path.partition("/")
    is_parents = name == root.absolute().name and not os.path.exists(root / path)  # noqa: PTH110
    if is_parents and os.path.exists(root / rest):  # noqa: PTH110
        return rest
    # A list made on a Mac, images from elsewhere: the same letters, written otherwise.
    others = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((one for one in (path, *others) if os.path.exists(root / one)), path)  # noqa: PTH110


def text_of(fields: Mapping[str, object], name: str) -> str:
    """Give a field as text, empty where it is missing or null."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""
