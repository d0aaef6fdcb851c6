"""Which images a dataset holds, by the name of its layout; no pixel is decoded.

Every layout lists all it can and adds what it cannot use to `problems`. Which file makes which row
is told where each family is read: `manifests.trees`, `beside`, `plain`, `visa_csv`, `meta_json`,
`real_iad`, `rows`. What is read and what is refused: docs/formats.md.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, cast

from manifests.beside import list_beside
from manifests.listing import Listing, Reading
from manifests.lists import Entry
from manifests.matching import match_masks as match_masks  # part of this module's face
from manifests.meta_json import list_meta_json
from manifests.plain import list_plain_folder
from manifests.problems import LAYOUTS, Layout, Problem
from manifests.real_iad import list_real_iad
from manifests.rows import list_rows
from manifests.schema import SPLITS
from manifests.trees import list_tree
from manifests.visa_csv import VISA_CSV, list_visa_csv
from spg_core.errors import ConfigError
from spg_core.nearest import near

TAKEN_BY: Final = {
    "normal": ("mvtec", "loco", "mvtec-3d", "folder", "list"),
    "masks": ("mvtec", "visa", "btad", "loco", "mvtec-ad-2", "folder"),
    "list_file": ("visa", "meta", "list", "real-iad"),
}
"""Corrections that not every layout can make use of."""


def list_entries(
    root: Path,
    *,
    layout: Layout,
    split: str,
    dataset: str,
    problems: list[Problem],
    reading: Reading | None = None,
) -> list[Entry]:
    """List a dataset's images, sorted by category, split, defect and path.

    Args:
        root: The dataset root.
        layout: How it is laid out.
        split: `train`, `test` or `all`.
        dataset: The category of layouts that have no other.
        problems: Gets everything that cannot be used.
        reading: What the user corrects.

    Raises:
        ConfigError: An unknown layout or split, or a reading that the layout does not take.
    """
    layout, reading = layout_named(layout), reading or Reading()
    for option, layouts in TAKEN_BY.items():
        if getattr(reading, option) and layout not in layouts:
            name = option.replace("_", "-")
            raise ConfigError(
                f"--{name} means nothing to layout {layout}; it is for {', '.join(layouts)}"
            )
    listing = Listing(root, splits_of(split), dataset, reading, problems)
    entries = sorted(_listed(listing, layout), key=Entry.order)
    return entries if listing.reading.limit is None else first_of_each(entries, listing.reading)


def _listed(listing: Listing, layout: Layout) -> Iterable[Entry]:
    match layout:
        case "visa" if listing.reading.list_file or (listing.root / VISA_CSV).exists():
            return list_visa_csv(listing)
        case "visa":
            return list_tree(listing, layout, instead_of=VISA_CSV)
        case "mvtec" | "btad" | "loco" | "mvtec-ad-2" | "mvtec-3d" | "bmad":
            return list_tree(listing, layout)
        case "kolektor" | "dagm":
            return list_beside(listing, layout)
        case "real-iad":
            return list_real_iad(listing)
        case "meta":
            return list_meta_json(listing)
        case "list":
            return list_rows(listing)
        case "folder":
            return list_plain_folder(listing)


def first_of_each(entries: Iterable[Entry], reading: Reading) -> list[Entry]:
    """Keep the first images of each category and label; those without a label yet stay."""
    seen: dict[tuple[str, int], int] = defaultdict(int)
    kept = []
    for entry in entries:
        if entry.label is not None and reading.limit is not None:
            group = (entry.category, entry.label)
            seen[group] += 1
            if seen[group] > reading.limit:
                continue
        kept.append(entry)
    return kept


def splits_of(split: str) -> tuple[str, ...]:
    """Give the splits that an option value names.

    Raises:
        ConfigError: Neither `train`, `test` nor `all`.
    """
    if split == "all":
        return SPLITS
    if split in SPLITS:
        return (split,)
    raise ConfigError(f"unknown split {split!r}; expected train, test or all")


def layout_named(name: str) -> Layout:
    """Give a layout by its name.

    Raises:
        ConfigError: No layout has this name; suggests the near one.
    """
    if name in LAYOUTS:
        return cast(Layout, name)
    raise ConfigError(
        f"unknown layout {name!r}; expected one of {', '.join(LAYOUTS)}{near(name, LAYOUTS)}"
    )
