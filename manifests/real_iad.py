"""Real-IAD: a JSON list a category, images in one folder for each resolution.

    realiad_jsons/realiad_jsons/<category>.json
      {"meta": {"normal_class": "OK", "prefix": "<category>/"},
       "train": [{category, anomaly_class, image_path, mask_path}, ..], "test": [..]}
    realiad_1024/<category>/OK/S0001/<name>.jpg
    realiad_1024/<category>/NG/<code>/S0001/<name>.jpg and <name>.png, its mask

A part is seen from five sides, and a side that shows nothing is OK in a folder called NG: only the
list knows.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from manifests.listing import Listing
from manifests.lists import Entry, checked, find_list, parse_json, read_list, text_of
from manifests.named_paths import normal_path
from manifests.paths import name_problem
from manifests.schema import GOOD
from manifests.words import SPLIT_OF

JSON_FOLDERS: Final = ("realiad_jsons/realiad_jsons", "realiad_jsons", ".")
"""Where the lists are, the first that has any: those of all views; `--list-file` for others."""


def list_real_iad(listing: Listing) -> list[Entry]:
    """List all categories that have a JSON list."""
    entries: list[tuple[Entry, str]] = []
    for path in _files(listing):
        text = read_list(listing, path, path.name)
        try:
            content = None if text is None else parse_json(text)
        except ValueError as error:
            listing.add("unusable list", path.name, f"not JSON: {error}")
            continue
        if isinstance(content, dict):
            entries += _category(listing, content, path)
        elif text is not None:
            listing.add("unusable list", path.name, "expected {train: [..], test: [..], meta: {}}")
    return checked(listing, entries)


def _files(listing: Listing) -> list[Path]:
    if listing.reading.list_file is not None:
        found = find_list(listing, "")
        folders = [] if found is None else [found]
    else:
        folders = [listing.root / folder for folder in JSON_FOLDERS]
    for folder in folders:
        if folder.is_file():
            return [folder]
        lists = sorted(folder.glob("*.json"))
        if lists:
            return lists
    listing.add(
        "missing file", JSON_FOLDERS[0], "no <category>.json there; --list-file FOLDER names it"
    )
    return []


def _category(
    listing: Listing, content: Mapping[str, object], path: Path
) -> Iterator[tuple[Entry, str]]:
    meta = content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    normal = text_of(meta, "normal_class") or "OK"
    folder: str | None = None
    for name, items in content.items():
        split = SPLIT_OF.get(name.casefold())
        if split is None and name != "meta":
            listing.add("other split", f"{path.name}: {name}")
        if split not in listing.splits:
            continue
        if not isinstance(items, list):
            listing.add("unusable list", f"{path.name} {name}", "expected a list of entries")
            continue
        for number, item in enumerate(items):
            place = f"{path.name} {name}[{number}]"
            entry = _entry(listing, item, path.stem, split, normal, place)
            if entry is None:
                continue
            if folder is None:
                folder = _image_folder(listing.root, entry, text_of(meta, "prefix"))
            mask = None if entry.mask_path is None else f"{folder}/{entry.mask_path}"
            yield replace(entry, image_path=f"{folder}/{entry.image_path}", mask_path=mask), place


def _entry(
    listing: Listing, item: object, category: str, split: str, normal: str, place: str
) -> Entry | None:
    fields: dict[str, object] = item if isinstance(item, dict) else {}
    image, code = text_of(fields, "image_path"), text_of(fields, "anomaly_class")
    category = text_of(fields, "category") or category
    if not image or not code or name_problem(code) or name_problem(category):
        detail = "expected category, anomaly_class, image_path and mask_path"
        listing.add("unusable list", place, detail)
        return None
    label = int(code != normal)
    mask = text_of(fields, "mask_path") or None
    return Entry(category, split, code if label else GOOD, image, mask, label)


def _image_folder(root: Path, entry: Entry, prefix: str) -> str:
    """Find the folder that the paths of a list start from; the largest images where several are."""

    def size(folder: Path) -> int:
        digits = re.sub(r"\D", "", folder.name)
        return int(digits[:9]) if digits else 1 << 30  # `realiad_raw` is larger than all

    resolutions = sorted(root.glob("realiad_*/"), key=size, reverse=True)
    tops = [path.name for path in resolutions if "json" not in path.name]
    starts = [f"{top}/{inner}" for top in (*tops, "") for inner in (prefix, entry.category, "")]
    for start in starts:
        folder = normal_path(start, root).strip("/")
        if os.path.isfile(root / folder / entry.image_path):  # noqa: PTH113 (any name is fine)
            return folder or "."
    return normal_path(starts[0], root).strip("/") or "."
