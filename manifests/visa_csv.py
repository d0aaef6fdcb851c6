"""VisA as it unpacks: a CSV names each image, its split, label and mask."""

from collections.abc import Mapping
from typing import Final

from manifests.listing import Listing
from manifests.lists import Entry, checked, csv_rows, find_list, read_list
from manifests.paths import name_problem
from manifests.schema import GOOD, SPLITS

VISA_CSV: Final = "split_csv/1cls.csv"
COLUMNS: Final = ("object", "split", "label", "image", "mask")
LABELS: Final = {"normal": 0, "anomaly": 1}


def list_visa_csv(listing: Listing) -> list[Entry]:
    """List raw VisA from its CSV.

    Its defects are called `bad`, as in the reorganised tree, so that both give the same rows in the
    same order, and with that the same cache key.
    """
    name = listing.reading.list_file or VISA_CSV
    path = find_list(listing, VISA_CSV)
    text = None if path is None else read_list(listing, path, name)
    if text is None:
        return []
    try:
        header, rows = csv_rows(text)
    except ValueError as error:
        listing.add("unusable list", name, f"not a CSV file: {error}")
        return []
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        detail = f"no column {', '.join(missing)}; expected {','.join(COLUMNS)}"
        listing.add("unusable list", name, detail)
        return []
    entries = []
    for number, cells in rows:
        place = f"{name} line {number}"
        entry = _entry(listing, cells, place)
        if entry is not None and entry.split in listing.splits:
            entries.append((entry, place))
    return checked(listing, entries)


def _entry(listing: Listing, cells: Mapping[str, str], place: str) -> Entry | None:
    label, split = LABELS.get(cells["label"].lower()), cells["split"].lower()
    if label is None or split not in SPLITS or name_problem(cells["object"]) is not None:
        detail = (
            f"object {cells['object']!r}, split {cells['split']!r}, label {cells['label']!r}; "
            f"expected a name, train or test, normal or anomaly"
        )
        listing.add("unusable list", place, detail)
        return None
    return Entry(
        category=cells["object"],
        split=split,
        defect="bad" if label else GOOD,
        image_path=cells["image"],
        mask_path=cells["mask"] or None,
        label=label,
    )
