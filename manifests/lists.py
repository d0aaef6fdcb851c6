"""Datasets that come with a list: VisA's CSV and AnomalyCLIP's `meta.json`.

A list is foreign input: every path in it is checked before anything is opened.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from manifests.paths import listed_file_is_fine, name_problem
from manifests.problems import Problem
from manifests.schema import GOOD, SPLITS

CSV_COLUMNS: Final = ("object", "split", "label", "image", "mask")
VISA_LABELS: Final = {"normal": 0, "anomaly": 1}
UNNAMED_DEFECT: Final = "defect"
"""What a defective `meta.json` entry without a `specie_name` is called."""


@dataclass(frozen=True)
class Entry:
    """One image as a layout lists it, before it is opened."""

    category: str
    split: str
    defect: str
    image_path: str
    mask_path: str | None
    label: int | None
    """0 or 1; None where only the mask will tell, which then settles `defect` too."""

    def order(self) -> tuple[str, str, str, str]:
        """Give the sort key of manifest rows; code points compare as UTF-8 bytes do."""
        return (self.category, self.split, self.defect, self.image_path)


def list_visa_csv(
    root: Path, list_path: str, splits: Sequence[str], problems: list[Problem]
) -> list[Entry]:
    """List raw VisA from its CSV with the columns object, split, label, image, mask."""
    text = _read_list(root, list_path, problems)
    if text is None:
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    except csv.Error as error:
        problems.append(Problem("unusable list", list_path, f"not a CSV file: {error}"))
        return []
    header = next(csv.reader(io.StringIO(text), skipinitialspace=True), [])
    missing = [column for column in CSV_COLUMNS if column not in header]
    if missing:
        detail = f"no column {', '.join(missing)}; expected {','.join(CSV_COLUMNS)}"
        problems.append(Problem("unusable list", list_path, detail))
        return []
    entries = []
    for number, row in enumerate(rows, start=2):
        cells = {column: (row[column] or "").strip() for column in CSV_COLUMNS}
        place = f"{list_path} line {number}"
        entry = _visa_entry(cells, place, problems)
        if entry is not None and entry.split in splits:
            entries.append((entry, place))
    return _checked(root, entries, problems)


def _visa_entry(cells: dict[str, str], place: str, problems: list[Problem]) -> Entry | None:
    label = VISA_LABELS.get(cells["label"].lower())
    if label is None or cells["split"] not in SPLITS or name_problem(cells["object"]) is not None:
        detail = (
            f"object {cells['object']!r}, split {cells['split']!r}, label {cells['label']!r}; "
            f"expected a name, train or test, normal or anomaly"
        )
        problems.append(Problem("unusable list", place, detail))
        return None
    return Entry(
        category=cells["object"],
        split=cells["split"],
        defect="bad" if label else GOOD,
        image_path=cells["image"],
        mask_path=cells["mask"] or None,
        label=label,
    )


def list_meta_json(
    root: Path, list_path: str, splits: Sequence[str], problems: list[Problem]
) -> list[Entry]:
    """List `{split: {category: [{img_path, mask_path, cls_name, specie_name, anomaly}]}}`.

    The category is the outer key; `cls_name` repeats it and is not read. `anomaly` decides the
    label, `specie_name` names the defect.
    """
    text = _read_list(root, list_path, problems)
    if text is None:
        return []
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(Problem("unusable list", list_path, f"not JSON: {error}"))
        return []
    if not isinstance(meta, dict):
        detail = "expected {split: {category: [entry, ...]}}"
        problems.append(Problem("unusable list", list_path, detail))
        return []
    entries = []
    for split, categories in meta.items():
        if split not in SPLITS:
            problems.append(Problem("other split", f"{list_path}: {split}"))
        elif split in splits:
            place = f"{list_path} {split}"
            entries += _meta_split(categories, split, place, problems)
    return _checked(root, entries, problems)


def _meta_split(
    categories: Any, split: str, place: str, problems: list[Problem]
) -> list[tuple[Entry, str]]:
    """List one split; `categories` is whatever the JSON holds there."""
    if not isinstance(categories, dict):
        problems.append(Problem("unusable list", place, "expected {category: [entry, ...]}"))
        return []
    entries = []
    for category, items in categories.items():
        here = f"{place}/{category}"
        if not isinstance(items, list) or name_problem(category) is not None:
            problems.append(Problem("unusable list", here, "expected a name and a list of entries"))
            continue
        for number, item in enumerate(items):
            entry = _meta_entry(item, category, split, f"{here}[{number}]", problems)
            if entry is not None:
                entries.append((entry, f"{here}[{number}]"))
    return entries


def _meta_entry(
    item: Any, category: str, split: str, place: str, problems: list[Problem]
) -> Entry | None:
    """Read one entry; `item` is whatever the JSON holds there."""
    fields: dict[str, Any] = item if isinstance(item, dict) else {}
    image, label = fields.get("img_path"), fields.get("anomaly")
    mask = fields.get("mask_path") or None
    defect = fields.get("specie_name") or UNNAMED_DEFECT
    texts = isinstance(image, str) and isinstance(mask, str | None) and isinstance(defect, str)
    if not texts or label not in (0, 1):
        detail = "expected img_path, mask_path and specie_name as text and anomaly 0 or 1"
        problems.append(Problem("unusable list", place, detail))
        return None
    if label == 1 and (defect == GOOD or name_problem(defect) is not None):
        detail = f"anomaly is 1 but specie_name is {defect!r}; expected the name of a defect"
        problems.append(Problem("unusable list", place, detail))
        return None
    defect = defect if label else GOOD
    return Entry(category, split, defect, str(image), mask, int(label == 1))


def _read_list(root: Path, list_path: str, problems: list[Problem]) -> str | None:
    if not listed_file_is_fine(root, list_path, "this layout", problems, {}):
        return None
    try:
        # utf-8-sig: spreadsheet programs put a byte order mark in front.
        return (root / list_path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("unusable list", list_path, f"cannot be read: {error}"))
        return None


def _checked(
    root: Path, entries: Sequence[tuple[Entry, str]], problems: list[Problem]
) -> list[Entry]:
    """Keep the entries whose files exist inside the root, each image once."""
    kept: dict[str, Entry] = {}
    real_folders: dict[str, str] = {}
    for entry, place in entries:
        paths = [entry.image_path, *([entry.mask_path] if entry.mask_path else [])]
        # Every path is looked at, not only up to the first bad one: all problems at once.
        fine = [listed_file_is_fine(root, path, place, problems, real_folders) for path in paths]
        if not all(fine):
            continue
        if entry.image_path in kept:
            problems.append(Problem("listed twice", entry.image_path, f"again in {place}"))
            continue
        kept[entry.image_path] = entry
    return list(kept.values())
