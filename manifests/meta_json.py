"""`meta.json` as AnomalyCLIP, AdaCLIP, April-GAN, FiLo, ADer, VCP-CLIP and SPG write it.

    {split: {category: [{img_path, mask_path, cls_name, specie_name, anomaly}, ..]}}

The category is the outer key; `cls_name` repeats it and is not read. `anomaly` decides the label,
`specie_name` names the defect. Generators leave an entry without a path where a folder was empty.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from manifests.listing import Listing
from manifests.lists import Entry, checked, find_list, parse_json, read_list
from manifests.paths import name_problem
from manifests.schema import GOOD
from manifests.words import SPLIT_OF, is_normal, label_of

META_JSON: Final = "meta.json"
UNNAMED_DEFECT: Final = "defect"
"""What a defective entry without a `specie_name` is called."""


def list_meta_json(listing: Listing) -> list[Entry]:
    """List what a `meta.json` names."""
    path = _find(listing)
    text = None if path is None else read_list(listing, path, path.name)
    if path is None or text is None:
        return []
    try:
        meta = parse_json(text)
    except ValueError as error:
        listing.add("unusable list", path.name, f"not JSON: {error}")
        return []
    if not isinstance(meta, dict):
        listing.add("unusable list", path.name, "expected {split: {category: [entry, ...]}}")
        return []
    if isinstance(meta.get("meta"), dict):
        detail = "this is Real-IAD's list: --dataset real-iad"
        listing.add("unusable list", path.name, detail)
        return []
    entries: list[tuple[Entry, str]] = []
    for name, categories in meta.items():
        split = SPLIT_OF.get(name.casefold())
        if split is None:
            listing.add("other split", f"{path.name}: {name}")
        elif split in listing.splits:
            entries += _split(listing, categories, split, f"{path.name} {name}")
    return checked(listing, entries)


def _find(listing: Listing) -> Path | None:
    """Find the list; `meta_visa.json` will do where it is the only one."""
    root = listing.root
    if listing.reading.list_file is None and not (root / META_JSON).exists():
        others = sorted(path.name for path in root.glob("meta_*.json"))
        above = sorted(f"../{path.name}" for path in root.absolute().parent.glob("meta*.json"))
        if len(others) == 1:
            return find_list(listing, others[0])
        if others or above:
            detail = f"not found, but {', '.join(others or above)}: --list-file NAME reads it"
            listing.add("missing file", META_JSON, detail)
            return None
    return find_list(listing, META_JSON)


def _split(
    listing: Listing, categories: object, split: str, place: str
) -> Iterator[tuple[Entry, str]]:
    """List one split; `categories` is whatever the JSON holds there."""
    if not isinstance(categories, dict):
        listing.add("unusable list", place, "expected {category: [entry, ...]}")
        return
    for category, items in categories.items():
        here = f"{place}/{category}"
        if not isinstance(items, list) or name_problem(category) is not None:
            listing.add("unusable list", here, "expected a name and a list of entries")
            continue
        for number, item in enumerate(items):
            entry = _entry(listing, item, category, split, f"{here}[{number}]")
            if entry is not None:
                yield entry, f"{here}[{number}]"


def _entry(listing: Listing, item: object, category: str, split: str, place: str) -> Entry | None:
    """Read one entry; `item` is whatever the JSON holds there."""
    fields: dict[str, object] = item if isinstance(item, dict) else {}
    image, label = fields.get("img_path"), label_of(fields.get("anomaly"))
    mask = fields.get("mask_path") or None
    defect = fields.get("specie_name") or UNNAMED_DEFECT
    if (
        not (isinstance(image, str) and isinstance(mask, str | None) and isinstance(defect, str))
        or label is None
    ):
        detail = "expected img_path, mask_path and specie_name as text and anomaly 0 or 1"
        listing.add("unusable list", place, detail)
        return None
    if image == "":
        listing.add("no path", place)
        return None
    if label == 1 and (is_normal(defect) or name_problem(defect) is not None):
        detail = f"anomaly is 1 but specie_name is {defect!r}; expected the name of a defect"
        listing.add("unusable list", place, detail)
        return None
    return Entry(category, split, defect if label else GOOD, image, mask, label)
