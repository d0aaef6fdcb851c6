"""Lists of one row an image, as JSON lines or CSV: AA-CLIP, UniAD, OneNIP, anomalib, own ones.

What they differ in is how they call things, which is one table, `FIELDS`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, TypeGuard

from manifests.listing import Listing
from manifests.lists import Entry, checked, csv_rows, find_list, parse_json, read_list
from manifests.named_paths import normal_path
from manifests.paths import name_problem
from manifests.schema import GOOD
from manifests.words import SPLIT_OF, is_normal, label_of

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "image": ("image_path", "img_path", "filename", "image"),
    "mask": ("mask_path", "maskname", "mask"),
    "label": ("label_index", "label", "anomaly"),
    "category": ("class_name", "clsname", "cls_name", "category", "object"),
    "defect": ("specie_name", "label_name", "defect"),
    "split": ("split",),
}
"""What a field is -> its names, in any case; of several images, masks .. in a row the first counts.

AA-CLIP: image_path, label, class_name, mask_path. UniAD, OneNIP: filename, label, label_name,
maskname, clsname. anomalib: image_path, label and label_index, mask_path, split.
"""

ENDINGS: Final = (".jsonl", ".json", ".csv", ".tsv")
NO_MASK: Final = ("", "-", "none", "nan", "null", "n/a", "na", "#n/a")
UNNAMED_DEFECT: Final = "defect"

Row = tuple[str, dict[str, object]]
"""Where a row stands, and its fields by name in lower case."""


def list_rows(listing: Listing) -> list[Entry]:
    """List what a list of rows names, or several lists in one folder (train.json, test.json)."""
    entries: list[tuple[Entry, str]] = []
    for path in _files(listing):
        text = read_list(listing, path, path.name)
        rows = [] if text is None else _rows(listing, text, path.name)
        has_normal = any(_own_label(fields, listing) == 0 for _, fields in rows)
        for place, fields in rows:
            entry = _entry(listing, fields, place, path, has_normal=has_normal)
            if entry is not None and entry.split in listing.splits:
                entries.append((entry, place))
    return checked(listing, entries)


def _files(listing: Listing) -> list[Path]:
    found: Path | None = listing.root
    if listing.reading.list_file is not None:
        found = find_list(listing, "")
    if found is None or not found.is_dir():
        return [] if found is None else [found]
    lists = sorted(path for path in found.iterdir() if path.name.lower().endswith(ENDINGS))
    if len(lists) == 1 or (lists and listing.reading.list_file is not None):
        return lists
    names = ", ".join(path.name for path in lists) or "no CSV or JSON lines"
    listing.add("missing file", "the list", f"{names} in the root; --list-file FILE names it")
    return []


def _rows(listing: Listing, text: str, name: str) -> list[Row]:
    """Parse a list by what it holds, not by its name; UniAD calls JSON lines `.json`."""
    try:
        start = text.lstrip()[:1]
        if start == "[":
            items = parse_json(text)
            assert isinstance(items, list)  # by its first letter
            found = [(f"{name}[{n}]", item) for n, item in enumerate(items)]
        elif start == "{":
            found = _json_lines(text, name)
        else:
            found = [(f"{name} line {n}", cells) for n, cells in csv_rows(text)[1]]
    except ValueError as error:
        listing.add("unusable list", name, f"neither JSON lines nor CSV: {error}")
        return []
    if not found:
        listing.add("unusable list", name, "no rows")
    for place, item in found:
        if not isinstance(item, dict):
            listing.add("unusable list", place, "expected an object of fields")
    return [(place, _lowered(listing, item, place)) for place, item in found if _is_row(item)]


def _is_row(item: object) -> TypeGuard[dict[str, object]]:
    return isinstance(item, dict)


def _lowered(listing: Listing, item: dict[str, object], place: str) -> dict[str, object]:
    """Give fields by their names in lower case, none of which may stand twice."""
    fields = {str(key).strip().lower(): value for key, value in item.items()}
    if len(fields) != len(item):
        listing.add("unusable list", place, "two fields of one name but for upper and lower case")
    return fields


def _json_lines(text: str, name: str) -> list[tuple[str, object]]:
    try:
        whole = parse_json(text)
    except json.JSONDecodeError:
        # Not splitlines, which would also cut at separators that JSON allows inside a text.
        lines = enumerate(re.split("\r\n|\n|\r", text), 1)
        return [(f"{name} line {n}", parse_json(line)) for n, line in lines if line.strip()]
    if isinstance(whole, dict) and not {*map(str.lower, whole)} & {*FIELDS["image"]}:
        if "annotations" in whole:
            raise ValueError("COCO's boxes and polygons; expected a list of masks as pictures")
        named = "real-iad" if "meta" in whole else "meta"
        raise ValueError(f"one object, as a list of layout {named} is: --dataset {named}")
    return [(f"{name} line 1", whole)]


def _field(fields: Mapping[str, object], what: str) -> object:
    """Give the first field of this meaning that says something."""
    values = (fields.get(name) for name in FIELDS[what])
    return next((value for value in values if value not in (None, "")), None)


def _labels(fields: Mapping[str, object], listing: Listing) -> list[int | None]:
    """Give all that a row says about its label: 0, 1, or a word that says neither."""
    found = [fields.get(name) for name in FIELDS["label"]]
    normal = listing.reading.normal
    return [
        0 if normal and isinstance(value, str) and is_normal(value, normal) else label
        for value in found
        if value not in (None, "")
        for label in [label_of(value)]
    ]


def _own_label(fields: Mapping[str, object], listing: Listing) -> int | None:
    known = {label for label in _labels(fields, listing) if label is not None}
    return known.pop() if len(known) == 1 else None


def _entry(
    listing: Listing, fields: dict[str, object], place: str, path: Path, *, has_normal: bool
) -> Entry | None:
    image, mask, defect = (_field(fields, what) for what in ("image", "mask", "defect"))
    labels = {label for label in _labels(fields, listing) if label is not None}
    words = [fields.get(name) for name in FIELDS["label"]]
    word = next((w for w in words if isinstance(w, str) and _is_a_name(w)), None)
    if not labels and word and has_normal:
        labels = {1}  # `scratch` in a list that also says `good`
    if not isinstance(image, str) or len(labels) != 1:
        detail = "expected an image's path and one label, 0 or 1, or words that say as much"
        listing.add("unusable list", place, f"{_shown(fields)}; {detail}")
        return None
    label = labels.pop()
    defect = defect or word or UNNAMED_DEFECT
    category = _field(fields, "category") or _category(listing, fields, image)
    split = _split(fields, path)
    if (
        not (isinstance(defect, str) and isinstance(category, str))
        or name_problem(defect)
        or name_problem(category)
        or (label and is_normal(defect))
    ):
        detail = f"category {category!r}, defect {defect!r}, label {label}; these do not fit"
        listing.add("unusable list", place, detail)
        return None
    if split is None:
        listing.add("other split", f"{place}: {fields.get('split')}")
        return None
    if not isinstance(mask, str | float | None):
        listing.add("unusable list", place, "expected one mask as text, or null")
        return None
    # NaN is what pandas makes of an empty cell.
    masked = None if str(mask).strip().lower() in NO_MASK else str(mask)
    return Entry(category, split, defect if label else GOOD, image, masked, label)


def _is_a_name(label: str) -> bool:
    """Tell a label that names a defect: no number, which might as well be a normal part's."""
    return label_of(label) is None and re.fullmatch(r"[-+\d.,]*", label.strip()) is None


def _category(listing: Listing, fields: Mapping[str, object], image: str) -> str:
    """Give the category of a row without one: UniAD's lists leave it to the path."""
    parts = PurePosixPath(normal_path(image, listing.root)).parts
    return parts[-4] if "filename" in fields and len(parts) >= 4 else listing.dataset


def _split(fields: Mapping[str, object], path: Path) -> str | None:
    """Give the split of a row: its own, else what the list's name says, else test."""
    own = _field(fields, "split")
    if own is not None:
        return SPLIT_OF.get(str(own).rpartition(".")[2].strip().casefold())
    stem = path.stem.casefold()
    return "train" if stem.startswith("train") or stem.endswith("train") else "test"


def _shown(fields: Mapping[str, object]) -> str:
    keys: Sequence[str] = [*FIELDS["image"], *FIELDS["label"]]
    said = {key: fields[key] for key in keys if key in fields}
    columns = ", ".join(filter(None, fields)) or "none"
    no_column = f"no known column among {columns:.100}"
    return ", ".join(f"{key} {value!r:.60}" for key, value in said.items()) or no_column
