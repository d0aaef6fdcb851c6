"""Datasets whose masks lie beside their images: KolektorSDD, KolektorSDD2, DAGM 2007."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from manifests.listing import Listing
from manifests.lists import Entry
from manifests.matching import masks_beside, match_masks, without_ending
from manifests.schema import GOOD
from manifests.words import SPLIT_OF

DEFECT: Final = "defect"
"""What a defect is called in sets that do not name them."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What such a dataset is like."""

    categories: bool
    """Whether the first folder is the category; else the dataset is one."""
    masks: str = ""
    """Folder of masks beside the images; empty where both lie in one folder."""
    every_mask: bool
    """Whether good images have an (empty) mask as well; else an image without one is good."""


BESIDE: Final[dict[str, Beside]] = {
    "kolektor": Beside(categories=False, every_mask=True),
    "dagm": Beside(categories=True, masks="label", every_mask=False),
}


def list_beside(listing: Listing, layout: str) -> list[Entry]:
    """List a dataset of the layout `layout`; it is all `test` where it has no split folders."""
    beside = BESIDE[layout]
    entries: list[Entry] = []
    n_masks = 0
    categories = listing.folder("").folders if beside.categories else ("",)
    for category in categories:
        name = category or listing.dataset
        for split, folder in _split_folders(listing, category, beside):
            files = listing.folder(folder)
            images, masks = _files(listing, beside, folder, files.images, files.folders)
            n_masks += len(masks)
            if split not in listing.splits:
                continue
            matched = match_masks(images, masks, listing.problems)
            entries += [_entry(listing, beside, name, split, *pair) for pair in matched.items()]
    if n_masks == 0:
        expected = "<class>/{Train,Test}/Label" if beside.masks else "masks beside their images"
        hint = listing.this_looks_like(layout)
        if beside.categories and {_name(path) for path in categories} & set(SPLIT_OF):
            hint = "; this is one category: give the folder above it"
        listing.add("wrong layout", ".", f"expected {expected}{hint}")
        return []
    return entries


def _entry(
    listing: Listing, beside: Beside, category: str, split: str, image: str, mask: str | None
) -> Entry:
    if mask is None and beside.every_mask:
        detail = f"no mask beside it, others have one{listing.this_looks_like('kolektor')}"
        listing.add("missing file", image, detail)
    if mask is None:
        return Entry(category, split, GOOD, image, None, 0)
    # Where all have masks, only the mask tells whether there is a defect in it.
    return Entry(category, split, DEFECT, image, mask, None if beside.every_mask else 1)


def _split_folders(listing: Listing, category: str, beside: Beside) -> list[tuple[str, str]]:
    """Give split and folder of all folders with images: train/ and test/, or all below."""
    inside = listing.folder(category).folders
    splits = [(SPLIT_OF.get(_name(path)), path) for path in inside]
    named = [(split, path) for split, path in splits if split is not None]
    if named or beside.categories:
        return named
    folders = {str(PurePosixPath(path).parent) for path in listing.walk(category)}
    return [("test", "" if folder == "." else folder) for folder in sorted(folders)]


def _files(
    listing: Listing,
    beside: Beside,
    folder: str,
    images: tuple[str, ...],
    folders: tuple[str, ...],
) -> tuple[dict[str, str], dict[str, str]]:
    """Give images and masks, path -> key for `match_masks`."""
    if not beside.masks:
        masks = masks_beside(images)
        keys = {path: without_ending(path) for path in images if path not in masks}
        return keys, {mask: without_ending(image) for mask, image in masks.items()}
    found = [path for path in folders if _name(path) == beside.masks]
    listed = listing.folder(found[0]).images if found else ()
    if not found:
        listing.add("wrong layout", folder, f"no folder {beside.masks} of masks beside the images")
    return (
        {path: PurePosixPath(path).stem for path in images},
        {path: PurePosixPath(path).stem for path in listed},
    )


def _name(path: str) -> str:
    return PurePosixPath(path).name.casefold()
